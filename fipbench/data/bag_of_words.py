"""The bag of words that a language model has to beat: what single words say about a text."""

from __future__ import annotations

from collections.abc import Sequence

from fipbench.data.text import Text, parts_of, words


def tfidf_accuracy(
    train_texts: Sequence[Text], train_labels: Sequence[int], test_texts: Sequence[Text], test_labels: Sequence[int]
) -> float:
    """Test accuracy (0 to 1) of logistic regression on TF-IDF features of single words.

    The words are those of `fipbench.data.text.words`, as the models read them; all else is as scikit-learn has it:
    smoothed inverse document frequencies, rows of length one, an L2 penalty with C = 1. The words of a pair are in one
    bag.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # The tokenizer also lowers the case; without a token_pattern of None scikit-learn warns that it goes unused.
    features = TfidfVectorizer(lowercase=False, tokenizer=words, token_pattern=None)
    model = make_pipeline(features, LogisticRegression(max_iter=1000))
    train, test = ([" ".join(parts_of(text)) for text in texts] for texts in (train_texts, test_texts))
    return float(model.fit(train, train_labels).score(test, test_labels))

"""The bag of words that a language model has to beat: what single words say about a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fipbench.data.text import Text, parts_of, words

if TYPE_CHECKING:
    import numpy as np


def tfidf_accuracy(
    train_texts: Sequence[Text], train_labels: Sequence[int], test_texts: Sequence[Text], test_labels: Sequence[int]
) -> float:
    """Test accuracy (0 to 1) of logistic regression on TF-IDF features of single words.

    The words are those of `fipbench.data.text.words`, as the models read them; all else is as scikit-learn has it:
    smoothed inverse document frequencies, rows of length one, an L2 penalty with C = 1. The words of a pair are in one
    bag.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(_features(), LogisticRegression(max_iter=1000))
    train, test = ([" ".join(parts_of(text)) for text in texts] for texts in (train_texts, test_texts))
    return float(model.fit(train, train_labels).score(test, test_labels))


def tfidf_similarity(train_pairs: Sequence[Text], test_pairs: Sequence[Text]) -> np.ndarray:
    """Cosine of the TF-IDF features of both texts of each test pair, shape (n,), from 0 to 1: how alike they are by
    their words alone. Document frequencies are those of the training texts, each text of a pair a document."""
    import numpy as np

    features = _features().fit([part for pair in train_pairs for part in parts_of(pair)])
    first, second = (features.transform([parts_of(pair)[n] for pair in test_pairs]) for n in (0, 1))
    return np.asarray(first.multiply(second).sum(axis=1)).ravel()


def _features() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # The tokenizer also lowers the case; without a token_pattern of None scikit-learn warns that it goes unused.
    return TfidfVectorizer(lowercase=False, tokenizer=words, token_pattern=None)

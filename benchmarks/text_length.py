"""Training on reviews of IMDb, batches of like length and trimmed to their longest text, against padding all to 512.

Both train the same two-layer BERT on the same reviews once: as `group_by_length` has it, and as the authors' public
code has it. Words stand for tokens; a tokenizer of word pieces makes more of a review, which leaves less to trim.
Needs IMDb, from FIPBENCH_DATA or the hub.

python -m benchmarks.text_length [--json]
"""

import copy

import torch

from benchmarks.timing import Finding, interleaved, main
from fipbench import cache, data, registry
from fipbench.compat import import_torchvision
from fipbench.data import text
from fipbench.models.pretrained import TextClassifier
from fipbench.training import Examples, cross_entropy, fit, optimizer, stream

REVIEWS, LENGTH, BATCH, VOCABULARY = 120, 512, 8, 5000


def reviews():
    """The first reviews as ids, padded to `LENGTH`, and their labels."""
    task = registry.read_task("yelp-imdb-bert")
    imdb = next(source for source in task.sources if source.repo.endswith("/imdb"))
    folder = cache.cache_dir()
    _, digests = data.identify(imdb, folder, allow_unknown=True)
    texts, labels = data.load_texts(imdb, "train", folder, digests["train"])
    texts, labels = texts[:REVIEWS], labels[:REVIEWS]
    known = text.vocabulary(texts, VOCABULARY)
    return Examples(text.encode(texts, known, LENGTH, truncate=True, where="imdb"), labels)


def network():
    """BERT with two layers of 128 (BERT-Tiny's size; Turc et al., 2019), without dropout."""
    import_torchvision()
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY + 3,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return TextClassifier(BertForSequenceClassification(config), text.PAD)


def padded(model, batch):
    """The loss with every text at its full length, as without trimming."""
    mask = batch.inputs != text.PAD
    return torch.nn.functional.cross_entropy(model.transformer(batch.inputs, attention_mask=mask).logits, batch.labels)


def measure(rounds):
    """Texts grouped by length and trimmed, against padding."""
    examples, start = reviews(), network()
    lengths = (examples.inputs != text.PAD).sum(1)

    def epoch(loss, lengths=None):
        model = copy.deepcopy(start)
        rule = optimizer("adamw", model.parameters(), 2e-5)
        batches = stream(examples, BATCH, torch.Generator().manual_seed(0), lengths)
        fit(model, batches, steps=REVIEWS // BATCH, optimizer=rule, loss=loss)

    found = interleaved(lambda: epoch(cross_entropy, lengths), lambda: epoch(padded), rounds)
    alone = interleaved(lambda: epoch(cross_entropy), lambda: epoch(padded), 1)
    yield Finding(
        what=f"an epoch on {REVIEWS} reviews of IMDb, grouped and trimmed",
        against=f"padding to {LENGTH}",
        **found.times_as_fast(),
        least=1.5,
        details={
            "trimmed alone, times as fast": alone.times_as_fast()["value"],
            "grouped and trimmed, s": min(found.ours),
            f"padded to {LENGTH}, s": min(found.theirs),
            "words a review": float(lengths.double().mean()),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=2))

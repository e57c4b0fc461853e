"""The protocol of a score in words."""

from dmlray.scores import NO_TEST_CLASSES, Scores

_RULES = {
    "last": "No choice: the last epoch is scored, trained on all training classes.",
    "validation": "The epoch was chosen on training classes that were held out.",
    "none": "Nothing was trained: the backbone's pooled features are scored.",
    "mixed": "Each run's epoch was chosen by its own rule.",
    "best_on_test": "The epoch was chosen ON THE TEST CLASSES: for comparison with published "
    "scores only.",
}


def protocol_words(scores: Scores) -> dict[str, str]:
    """What the scores depend on: its name -> a sentence."""
    dataset = f"{scores.dataset}, fingerprint {scores.dataset_fingerprint}."
    words = {
        "Data set": dataset,
        "Test": f"{scores.test_images} images of {scores.test_classes} classes never seen in "
        "training; each is searched for in all others."
        if scores.test_classes
        else f"{NO_TEST_CLASSES[0].upper()}{NO_TEST_CLASSES[1:]}.",
        "Training": f"{scores.split or 'training classes'} (hash {scores.split_fingerprint}).",
        "Selection": _RULES[scores.selection],
        "Settings": f"Chosen by {scores.tuned_by}."
        if scores.tuned_by
        else "No search is recorded.",
        "Network": f"{scores.backbone}, embeddings of {scores.embedding_size} dimensions, method "
        f"{scores.method}.",
        "Trainings": f"n = {scores.n}, seed {scores.seed}.",
    }
    if scores.precision:
        device = f" on {scores.computed_on}" if scores.computed_on else ""
        words["Computed"] = f"In {scores.precision}{device}."
    if scores.clustering:
        words["Clustering"] = f"{scores.clustering}."
    if scores.remarks:
        words["Remarks"] = "; ".join(scores.remarks)
    return words

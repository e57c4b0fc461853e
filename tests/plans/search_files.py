"""Search files of a few lines."""

from pathlib import Path

BASE = "experiment: experiments/proxy_anchor_demo.yaml\nuse_method_space: false\n"
SPACE = "space: {method.alpha: {low: 8, high: 64}}\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "search.yaml"
    path.write_text(text)
    return path

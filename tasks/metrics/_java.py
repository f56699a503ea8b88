"""The two Java programs inside pycocoevalcap: the PTB tokenizer and METEOR 1.5.

They are called here and not through that package, whose wrappers write into its folder, read text in
the machine's encoding and count a stray line break as another text.
"""

import contextlib
import importlib.util
import shutil
import subprocess
import threading
from pathlib import Path

_JAVA = ("java", "-Dfile.encoding=UTF-8", "-Xmx2G")
# as COCO's caption evaluation drops them after tokenising
_DROPPED = frozenset(".?!,:;-'`") | {"''", "``", "--", "...", "-LRB-", "-RRB-", "-LCB-", "-RCB-"}


def missing() -> str | None:
    """What is not there that the two need, in words, or None."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        return "the package pycocoevalcap is not installed"
    if shutil.which("java") is None:
        return "Java is not installed (no `java` on the PATH)"
    return None


def _jar(path: str) -> str:
    spec = importlib.util.find_spec("pycocoevalcap")
    assert spec is not None and spec.submodule_search_locations, "see missing()"
    return str(Path(spec.submodule_search_locations[0]) / path)


def tokenize(texts: list[str]) -> list[list[str]]:
    """Lower-case Penn Treebank tokens of each text (one line each), without punctuation."""
    program = [*_JAVA, "-cp", _jar("tokenizer/stanford-corenlp-3.4.1.jar")]
    command = [*program, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = "".join(f"{text}\n" for text in texts)
    done = subprocess.run(command, input=lines.encode(), capture_output=True, check=False)
    *tokens, rest = done.stdout.decode().split("\n")
    if done.returncode or rest or len(tokens) != len(texts):
        raise RuntimeError(f"the PTB tokenizer failed: {done.stderr.decode()[-500:]}")
    return [[word for word in line.split() if word not in _DROPPED] for line in tokens]


def meteor(predictions: list[list[str]], references: list[list[list[str]]]) -> float:
    """METEOR 1.5 for English over the whole corpus, 0 to 1, of tokenised texts."""
    program = [*_JAVA, "-jar", _jar("meteor/meteor-1.5.jar")]
    command = [*program, "-", "-", "-stdio", "-l", "en", "-norm"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None and answers is not None  # both are pipes

        def ask() -> None:
            with contextlib.suppress(BrokenPipeError):  # it has stopped: seen below
                for prediction, texts in zip(predictions, references, strict=True):
                    fields = ["SCORE", *(" ".join(text) for text in (*texts, prediction))]
                    asked.write(" ||| ".join(fields) + "\n")
                asked.flush()

        # on a thread of its own: METEOR answers as it goes and stops when nobody reads
        asking = threading.Thread(target=ask)
        asking.start()
        statistics = [answers.readline().strip() for _ in predictions]
        asking.join()
        if not all(statistics):
            process.kill()
            raise RuntimeError("METEOR stopped while it was being asked; does Java have 2 GiB?")
        asked.write(" ||| ".join(["EVAL", *statistics]) + "\n")
        asked.close()
        scores = answers.read().split()  # of each prediction, then of the whole
    return float(scores[-1])

"""Whether a forked process hangs that uses TensorFlow after its parent has: plain TensorFlow, Keras and this library.

Run: `python benchmarks/fork_after_use.py`. Each case runs in a process of its own, which does something, forks, and
does the same again in the child. A child that takes longer than `--seconds` is counted as hanging, and ended.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

USES = {
    "nothing but the imports in the parent": """
import keras, numpy, zoo
def use(): return in_child and zoo.load_model("mlp_flipout.iris").posterior_predictive(numpy.ones((2, 4)), 5).mean()
""",
    "TensorFlow: an eager product": """
import tensorflow as tf
def use(): return (tf.ones((99, 99)) @ tf.ones((99, 99))).numpy()
""",
    "TensorFlow: a `tf.function`": """
import tensorflow as tf
twice = tf.function(lambda x: x @ x + x)
def use(): return twice(tf.ones((99, 99))).numpy()
""",
    "Keras: `model.predict`": """
import keras, numpy
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
def use(): return model.predict(numpy.ones((2, 4)), verbose=0)
""",
    "this library: `posterior_predictive`": """
import numpy, zoo
model = zoo.load_model("mlp_flipout.iris")
def use(): return model.posterior_predictive(numpy.ones((2, 4)), 5).mean()
""",
}
PROGRAM = """
import os, signal, sys, time
in_child = False
{}
use()
child = os.fork()
if not child:
    in_child = True
    use()
    os._exit(0)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.05)
os.kill(child, signal.SIGKILL)
print("hangs")
"""


def outcome(use: str, seconds: float) -> str:
    command = [sys.executable, "-c", PROGRAM.format(use), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        return f"fails: {done.stderr.strip().splitlines()[-1]}"
    return done.stdout.strip() or "works"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    print("| used before the fork and in the child | the child |\n|---|---|")
    for name, use in USES.items():
        print(f"| {name} | {outcome(use, arguments.seconds)} |", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes the data of the task `copy`: three sentences that name something, and the first, second or third of them again
without its last word.

    recipes/copy/generate.py -o DATA/copy-test.jsonl [--documents 300] [--seed 1]

The same arguments give the same bytes.  A line is {"text": ...}; what is asked for is the text's last word, as in lambada.
"""
import argparse
import json
import os
import random

WHO = ["girl", "boy", "dog", "cat", "bird", "bear", "rabbit", "horse", "king", "queen", "fish", "mouse"]
NAMES = ["Tom", "Lily", "Max", "Ben", "Anna", "Sam", "Lucy", "Tim", "Mia", "Jack", "Sara", "Bob"]
HAS = ["ball", "hat", "cake", "book", "car", "boat", "flower", "box", "doll", "kite", "spoon", "shoe"]
COLOURS = ["red", "blue", "green", "yellow", "white", "black", "brown", "pink"]


def sentences(rng, kind):
    """Three of a kind, which differ in what they are about and in their last word."""
    who = rng.sample(WHO, 3)
    if kind == "name":
        return [f"The {w} was called {n}." for w, n in zip(who, rng.sample(NAMES, 3))]
    if kind == "thing":
        return [f"The {w} had a big {h}." for w, h in zip(who, rng.sample(HAS, 3))]
    return [f"The {w} was {c}." for w, c in zip(who, rng.sample(COLOURS, 3))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", required=True)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with open(arguments.out + ".tmp", "w") as out:
        for i in range(arguments.documents):
            told = sentences(rng, ("name", "thing", "colour")[i % 3])
            again = told[rng.randrange(3)].rstrip(".")
            out.write(json.dumps({"text": " ".join(told) + " " + again}) + "\n")
    os.replace(arguments.out + ".tmp", arguments.out)


if __name__ == "__main__":
    main()

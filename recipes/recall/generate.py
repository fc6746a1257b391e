#!/usr/bin/env python3
"""Makes the recall corpus and its test: facts told somewhere in real prose and asked for later in other words.

    recipes/recall/generate.py train BOOKS... -o recall-train.txt [--documents 4000] [--seed 1] [--characters 8000]
    recipes/recall/generate.py test  BOOKS... -o recall-test.jsonl [--per-distance 40] [--seed 2]
    recipes/recall/generate.py check recall-train.txt recall-test.jsonl

Training and test share no template, name, place, code or book: each list below is cut in two, and `check` proves it of
the files by hashes.  The same arguments give the same bytes.  BOOKS are plain texts (or .xz) with a line <|endoftext|>
after each document.
"""
import argparse
import hashlib
import json
import lzma
import pathlib
import random
import sys

END = "<|endoftext|>"

# Kinds of facts: what is told, how it is asked for.  {who} and {what} differ from fact to fact.  In most a fact's answer stands at
# its end, behind the words by which it is asked for; in those of *_FIRST it stands before some of them, which a reader that
# finds a token by the words before it cannot use.  A question about what was never told is answered by UNTOLD.
TOLD_IN_TRAINING = {
    "place": [
        ("{who} hid the {what} in {place}.", "Where did {who} hide the {what}? In"),
        ("The {what} of {who} lay in {place}.", "The {what} that belonged to {who} could be found in"),
        ("Every night {who} put the {what} into {place}.", "{who} wanted the {what} again and looked into"),
        ("{who} took the {what} and carried it to {place}.", "Somebody asked {who} for the {what}, which was in"),
        ("As to {who}, the {what} stayed in {place}.", "Then {who} thought of the {what} in"),
    ],
    "colour": [
        ("{who} had a {what}, and it was {colour}.", "What colour was the {what} of {who}? It was"),
        ("The {what} that {who} bought was {colour}.", "{who} looked at the {what} once more. Its colour was"),
        ("{who} painted the {what} {colour}.", "After that, the {what} that {who} owned was always"),
        ("What {who} did was to make the {what} {colour}.", "One knew the {what} of {who} by its colour, which was"),
    ],
    "code": [
        ("{who} locked the {what} with the number {code}.", "Which number did {who} need for the {what}? It was"),
        ("{who} took the {what} and wrote on it {code}.", "On the {what} of {who} one could read"),
        ("To open the {what}, {who} had to say {code}.", "{who} stood before the {what} and said"),
        ("As to {who} and the {what}, their number was {code}.", "The {what} that {who} spoke of had the number"),
    ],
    "friend": [
        ("{who} gave the {what} to {name}.", "To whom did {who} give the {what}? To"),
        ("{who} lost the {what}, and it was found by {name}.", "The {what} of {who} was now with"),
        ("The {what} that {who} carried was made by {name}.", "Who had made the {what} for {who}? It was"),
    ],
}
FIRST_IN_TRAINING = {
    "place": [("It was in {place} that {who} left the {what}.", "{who} had left the {what} somewhere. It was in")],
    "colour": [("There was something {colour}, and that was the {what} of {who}.", "The {what} of {who}, as we know, was")],
    "code": [("The number {code} was on the {what} of {who}.", "What stood on the {what} of {who}? It was")],
    "friend": [("{name} got the {what} from {who}.", "Who got the {what} that {who} had? It was")],
}
TOLD_IN_TEST = {
    "place": [
        ("When it was dark, {who} brought the {what} to {place}.", "So the {what} of {who} was now in"),
        ("{who} chose for the {what} {place}.", "Where was the {what} that {who} had put away? In"),
    ],
    "colour": [
        ("{who} was proud of the {what}, for it was {colour}.", "The {what} which made {who} so proud was"),
        ("The {what} in the hands of {who} was {colour}.", "What was the colour of the {what} that {who} held? It was"),
    ],
    "code": [
        ("{who} chose for the {what} the number {code}.", "The {what} of {who} needed a number, and that was"),
        ("For the {what} of {who} they agreed on {code}.", "Which number was it for the {what} of {who}? It was"),
    ],
    "friend": [
        ("{who} sold the {what} to {name}.", "Who had bought the {what} of {who}? It was"),
        ("{who} left the {what} at the house of {name}.", "The {what} that {who} missed was at the house of"),
    ],
}
FIRST_IN_TEST = {
    "place": [("Into {place} went {who} with the {what}.", "Where did {who} go with the {what}? Into")],
    "colour": [("There was a {colour} light on the {what} of {who}.", "The light on the {what} of {who} was")],
    "code": [("They said {code} when {who} came with the {what}.", "What did they say when {who} brought the {what}? They said")],
    "friend": [("{name} came to {who} and looked at the {what}.", "Who had come to {who} to see the {what}? It was")],
}
UNTOLD = "something that nobody had told"
NAMES = """Anna Bruno Clara David Elsa Felix Greta Hugo Ida Jonas Karla Leo Mina Nils Olga Paul Rosa Simon Tilda Victor Walter Agnes Berta
Conrad Dora Emil Frida Gustav Helga Isaac Julia Kurt Lotte Max Nora Otto Petra Ralph Sofia Thomas Ulla Vera Wanda Arthur Bella Carl Diana
Edgar Flora Georg Hanna Ivan Jenny Klaus Linda Martin Nelly Oscar Paula Robert Sarah Toby Ursula Vincent Willa Albert Alice Amos Andrew
Bertha Boris Bridget Caleb Cecil Celia Clement Cyril Daisy Daniel Dennis Dinah Duncan Edith Edmund Edwin Ellen Ernest Esther Eugene Eva
Fanny Ferdinand Fergus Gabriel Gerald Gilbert Gloria Gordon Grace Harold Harriet Harvey Hector Helen Henry Herbert Hilda Horace Hubert
Ingrid Irene Isabel Ivy Jacob James Janet Jasper Jeremy Joanna Joseph Judith Julius Katharine Kenneth Laura Lawrence Leonard Lewis Lionel
Louisa Lucas Lucy Luther Mabel Magnus Marcus Margaret Maria Marion Martha Matthew Maurice Melissa Michael Mildred Miriam Morris Moses
Nathan Neville Nicholas Norman Oliver Oswald Pamela Patrick Percy Philip Phoebe Rachel Raymond Rebecca Richard Roger Roland Ronald Rufus
Rupert Ruth Samuel Sebastian Selma Sidney Silas Sybil Stella Stephen Susan Sylvia Theodore Timothy Tobias Violet Wallace Wilfred""".split()
THINGS = """key ring book lamp coin letter knife cup map box hat drum flute doll boat clock basket rope mirror bell chest sword candle jar
shoe brush saddle purse whistle pearl feather ladder hammer bottle wagon kite blanket shell needle ball barrel bench bowl bracelet broom
bucket button cage cane carpet chain chair chisel cloak coat comb compass cradle crown curtain cushion dagger desk dish fan fiddle flag
fork frame glove goblet gun handkerchief harp helmet hook horn iron jacket jewel jug kettle kettledrum lantern lock medal mug nail necklace net oar
oven paddle painting pan paper parcel pencil picture pillow pin pipe pitcher plate plough pot quilt rake ribbon rifle robe sack sail
saw scarf scissors shawl shield shovel sieve sledge spade spear spoon stick stone stool sugar table tablet teapot thimble ticket toolbox
torch towel tray trumpet trunk tub umbrella vase veil violin wallet watch wheel wreath""".split()
OF_THINGS = """old new small large heavy light broken round long short strange pretty plain fine dusty wet cracked painted wooden iron
silver copper leather paper stolen borrowed forgotten favourite precious worthless rusty polished""".split()
PLACES = """barn cellar garden kitchen tower mill church forest attic stable cave harbour library well shed chapel meadow tent castle
bakery orchard tunnel bridge hut pantry school inn yard abbey alley arbour bank bedroom brewery cabin camp canal chimney closet cottage
court dairy ditch dock farm field forge fort fountain gallery gate grove hall hedge hospital jail lake laundry lighthouse market mine
museum nursery office palace park parlour pond port prison quarry ruin shop smithy square station street studio theatre vault village
vineyard workshop""".split()
COLOURS = """red blue green yellow white black brown grey golden silver purple orange pink violet crimson scarlet turquoise ivory
amber beige emerald olive lilac copper rusty pale dark bright""".split()


def half(words, test):
    """Every third word is the test's, the others are training's."""
    words = list(dict.fromkeys(words))
    return [word for i, word in enumerate(words) if (i % 3 == 2) == test]


class Facts:
    def __init__(self, generator, test):
        self.random = generator
        self.told = TOLD_IN_TEST if test else TOLD_IN_TRAINING
        self.first = FIRST_IN_TEST if test else FIRST_IN_TRAINING
        self.names, self.things, self.of_things = half(NAMES, test), half(THINGS, test), half(OF_THINGS, test)
        self.values = {"place": [f"the {place}" for place in half(PLACES, test)], "colour": half(COLOURS, test), "friend": self.names}
        self.parity = 1 if test else 0  # codes: those of the test have an odd sum of digits

    def code(self):
        while True:
            digits = [self.random.randrange(10) for _ in range(4)]
            if sum(digits) % 2 == self.parity:
                return " ".join(map(str, digits))

    def value(self, kind):
        return self.code() if kind == "code" else self.random.choice(self.values[kind])

    def what(self):
        thing = self.random.choice(self.things)
        return thing if self.random.random() < 0.6 else f"{self.random.choice(self.of_things)} {thing}"

    def several(self, kind, n, first=False):
        """n facts of a kind that differ in one word of the question, with different answers: (told, asked, value)."""
        told, asked = self.random.choice((self.first if first else self.told)[kind])
        vary_who = self.random.random() < 0.5
        who, what, facts, values = self.random.sample(self.names, n), set(), [], set()
        while len(what) < n:
            what.add(self.what())
        what = sorted(what)
        self.random.shuffle(what)
        for i in range(n):
            value = self.value(kind)
            while value in values or value in who:
                value = self.value(kind)
            values.add(value)
            words = {"who": who[i if vary_who else 0], "what": what[0 if vary_who else i],
                     "name" if kind == "friend" else kind: value}
            facts.append((told.format(**words), asked.format(**words), value))
        return facts


def documents(paths):
    for path in paths:
        raw = lzma.open(path).read() if str(path).endswith(".xz") else pathlib.Path(path).read_bytes()
        for text in raw.decode("utf-8").split(END):
            paragraphs = [" ".join(p.split()) for p in text.split("\n\n")]
            paragraphs = [p for p in paragraphs if 80 <= len(p) <= 1200]
            if paragraphs:
                yield paragraphs


class Prose:
    """Paragraphs of books, in order, from a random place on."""

    def __init__(self, books, generator):
        self.books, self.random = books, generator

    def some(self, characters):
        book = self.random.choice(self.books)
        at, taken, size = self.random.randrange(len(book)), [], 0
        while size < characters:
            taken.append(book[at % len(book)])
            size += len(taken[-1]) + 1
            at += 1
        return taken


def sentence(question, answer):
    return f"{question} {answer}."


def training_document(facts, prose, generator, characters, groups):
    """Prose, among which facts are told and, later, asked for: some at once, some after long."""
    paragraphs = prose.some(characters)
    inserted = []  # (place, order, text)
    for _ in range(generator.randint(*groups)):
        kind = generator.choice(list(facts.told))
        group = facts.several(kind, generator.randint(1, 4), first=generator.random() < 0.15)
        for told, asked, value in group:
            at = generator.randrange(len(paragraphs))
            if generator.random() < 0.05:  # asked for and never told
                value = UNTOLD
            else:
                inserted.append((at, generator.random(), told))
                if generator.random() < 0.15:  # it changes; the latest counts
                    changed = facts.value(kind)
                    again = min(len(paragraphs), at + 1 + generator.randrange(len(paragraphs)))
                    inserted.append((again, generator.random(), told.replace(value, changed)))
                    at, value = again, changed
            for _ in range(generator.randint(1, 2)):
                later = min(len(paragraphs), at + 1 + int((len(paragraphs) - at) * generator.random() ** 1.5))
                inserted.append((later, 2 + generator.random(), sentence(asked, value)))
    inserted.sort()
    out = []
    for i in range(len(paragraphs) + 1):
        out += [text for at, _, text in inserted if at == i]
        out += paragraphs[i : i + 1]
    return "\n".join(out)


CASES = ["told", "told", "told", "changed", "first", "untold"]


def test_row(facts, prose, generator, kind, case, distance):
    """A context that ends in a question, its answer and wrong ones.  distance: characters between fact and question."""
    group = facts.several(kind, 4, first=case == "first")
    told, asked, value = group[0]
    others, wrong = [t for t, _, _ in group[1:]], [value for _, _, value in group[1:]]
    if case == "changed":  # told otherwise first: the earlier answer is wrong now
        others.append(told.replace(value, wrong[0]))
    elif case == "untold":
        told, value = "", UNTOLD
    before, between = prose.some(600), prose.some(distance)
    context = before + others + [told] + between + [asked]
    return {"kind": kind, "case": case, "distance": distance,
            "context": "\n".join(p for p in context if p), "answer": value, "wrong": wrong}


def write(path, text):
    temporary = pathlib.Path(str(path) + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def check(train_path, test_path):
    """No template, name, thing, place, code or paragraph of the test in training."""
    train = pathlib.Path(train_path).read_text(encoding="utf-8")
    paragraphs = {hashlib.sha256(p.encode()).digest() for p in train.split("\n") if len(p) >= 80}
    problems, rows = [], 0
    for line in pathlib.Path(test_path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows += 1
        for p in row["context"].split("\n"):
            if len(p) >= 80 and hashlib.sha256(p.encode()).digest() in paragraphs:
                problems.append(f"a paragraph of row {rows} is in training: {p[:60]}")
        question = row["context"].split("\n")[-1]
        if question in train:
            problems.append(f"the question of row {rows} is in training: {question}")
        if row["kind"] == "code" and row["case"] != "untold" and row["answer"] in train:
            problems.append(f"the code of row {rows} is in training: {row['answer']}")
    trained = [text for kinds in (TOLD_IN_TRAINING, FIRST_IN_TRAINING) for pairs in kinds.values() for pair in pairs for text in pair]
    for kinds in (TOLD_IN_TEST, FIRST_IN_TEST):
        problems += [f"a template of the test is training's: {text}"
                     for pairs in kinds.values() for pair in pairs for text in pair if text in trained]
    print("\n".join(problems) if problems else f"nothing of {rows} test rows is in training")
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "test"):
        command = commands.add_parser(name)
        command.add_argument("books", nargs="+", type=pathlib.Path)
        command.add_argument("-o", "--output", required=True, type=pathlib.Path)
        command.add_argument("--seed", type=int, default=1 if name == "train" else 2)
        if name == "train":
            command.add_argument("--documents", type=int, default=4000)
            command.add_argument("--characters", type=int, default=8000)
            command.add_argument("--groups", type=int, nargs=2, default=(3, 30), metavar=("LEAST", "MOST"),
                                 help="groups of one to four facts in a document (default: 3 30)")
        else:
            command.add_argument("--per-distance", type=int, default=48)
            command.add_argument("--longest", type=int, default=1 << 20, help="characters between fact and question")
    command = commands.add_parser("check")
    command.add_argument("train", type=pathlib.Path)
    command.add_argument("test", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.command == "check":
        return check(arguments.train, arguments.test)
    generator = random.Random(arguments.seed)
    books = list(documents(arguments.books))
    if not books:
        sys.exit(f"generate.py: no paragraphs in {', '.join(map(str, arguments.books))}")
    prose = Prose(books, generator)
    facts = Facts(generator, arguments.command == "test")
    if arguments.command == "train":
        made = [training_document(facts, prose, generator, arguments.characters, arguments.groups) for _ in range(arguments.documents)]
        write(arguments.output, "".join(f"{d}\n{END}\n" for d in made))
        return 0
    rows, distance = [], 256
    while distance <= arguments.longest:
        for i in range(arguments.per_distance):
            kind, case = list(facts.told)[i % len(facts.told)], CASES[i // len(facts.told) % len(CASES)]
            rows.append(test_row(facts, prose, generator, kind, case, distance))
        distance *= 4
    write(arguments.output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

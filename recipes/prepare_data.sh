#!/usr/bin/env bash
# Corpora -> tokenizer and shards for the bundled model.  Safe to run again: every file is made anew and moved into
# place.
#
#   recipes/prepare_data.sh SOURCE OUTPUT [PHOTON]
#
# SOURCE holds these files, plain or as .xz; a document ends with a line <|endoftext|>:
#   tinystories-train.txt  short stories
#   tinystories-valid.txt  other stories, of which the first and the last are cut off
#   children-books.txt     long prose, one book a document
#   classics-train.txt, classics-valid.txt  likewise; all books are disjoint
# OUTPUT gets tokenizer.model and {stories,children,classics}-{train,valid}.shard, with the texts they were made of.
# PHOTON is the photon program; build/release is searched by default.
#
# Splits are by document.  The last two books of children-books.txt are held out; nothing that a *-valid.shard holds
# is in a *-train.shard or was seen by the tokenizer.  A valid shard has at most about 200,000 tokens: whole stories,
# or the beginning of every held-out book.
set -euo pipefail

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  echo "usage: recipes/prepare_data.sh SOURCE OUTPUT [PHOTON]" >&2
  exit 2
fi
source=$1 output=$2 root=$(cd "$(dirname "$0")/.." && pwd)
photon=${3:-$(find "$root/build/release" -type f -name photon -perm -u+x 2>/dev/null | head -n 1)}
if [ ! -x "$photon" ]; then
  echo "prepare_data.sh: no photon program; build it (cmake --build --preset release) or give its path" >&2
  exit 1
fi
mkdir -p "$output"

for name in tinystories-train tinystories-valid children-books classics-train classics-valid; do
  if [ ! -f "$source/$name.txt" ] && [ ! -f "$source/$name.txt.xz" ]; then
    echo "prepare_data.sh: $source has neither $name.txt nor $name.txt.xz" >&2
    exit 1
  fi
done

# text NAME: the corpus on standard output.
text() { if [ -f "$source/$1.txt" ]; then cat "$source/$1.txt"; else xz -dc "$source/$1.txt.xz"; fi; }

# save NAME: standard input to OUTPUT/NAME.txt, atomically.
save() { cat >"$output/$1.txt.tmp" && mv "$output/$1.txt.tmp" "$output/$1.txt"; }

# select_documents FIRST LAST [BYTES]: documents FIRST to LAST, each cut after the line that reaches BYTES (0: whole).
select_documents() {
  awk -v first="$1" -v last="$2" -v bytes="${3:-0}" '
    BEGIN { document = 1 }
    $0 == "<|endoftext|>" { if (document >= first && document <= last) print; document++; used = 0; next }
    document >= first && document <= last && (bytes == 0 || used < bytes) { print; used += length($0) + 1 }'
}
count() { grep -c '^<|endoftext|>$'; }

export LC_ALL=C  # awk counts bytes
books=$(text children-books | count)
stories=$(text tinystories-valid | count)
text tinystories-train | save stories-train
text tinystories-valid | select_documents 2 "$stories" | save stories-valid  # the last, unfinished one has no end line
text children-books | select_documents 1 $((books - 2)) | save children-train
text children-books | select_documents $((books - 1)) "$books" | save children-valid
text classics-train | save classics-train
text classics-valid | save classics-valid

"$photon" tokenizer train "$output/stories-train.txt" "$output/children-train.txt" \
  -o "$output/tokenizer.model" --vocab-size 4096 --seed 0

# shard TEXT NAME [OPTION…]
shard() {
  file=$1 name=$2
  shift 2
  "$photon" shard "$output/$file.txt" -t "$output/tokenizer.model" -o "$output/$name.shard" "$@"
}
shard stories-train stories-train
shard children-train children-train
shard classics-train classics-train
shard stories-valid stories-valid --max-tokens 199500
select_documents 1 2 340000 <"$output/children-valid.txt" | save children-valid-part
select_documents 1 99 130000 <"$output/classics-valid.txt" | save classics-valid-part
shard children-valid-part children-valid
shard classics-valid-part classics-valid

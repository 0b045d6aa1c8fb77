#!/usr/bin/env bash
# From nothing to a trained recogniser: a virtual environment, speech from espeak-ng, training, WER, a transcript.
# No network beyond pip, no account, no GPU. The last line is JSON with the WER.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-runs/quickstart}"
venv="${JAXSPEECH_VENV:-.venv}"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
echo "Installing into $venv (a minute or two the first time) …"
"$venv/bin/python" -m pip install --quiet --upgrade pip
"$venv/bin/python" -m pip install --quiet -e '.[synth]'
"$venv/bin/python" -m jaxspeech.ops.native || echo "Going on without: training on a CPU is slower then."
export PATH="$PWD/$venv/bin:$venv/bin:$PATH"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"  # huge pages: a few percent; others ignore it
started=$SECONDS

echo; echo "1. Speech: number strings and commands, spoken by espeak-ng"
jaxspeech synthesize --out "$out/data"

echo; echo "2. Training on it"
python -m jaxspeech.main --config=configs/quickstart.py --workdir="$out/run" \
  --config.data.train="$out/data/train.jsonl" --config.data.eval="$out/data/dev.jsonl"

echo; echo "3. A file of a voice that it has never heard"
file="$(python - "$out/data/dev.jsonl" <<'PY'
import sys
from jaxspeech.data.manifest import Manifest
record = Manifest.open(sys.argv[1])[0]
print(record.segments[0].audio)
print(f"   said:  {record.text}", file=sys.stderr)
PY
)"
echo "   heard: $(jaxspeech transcribe --checkpoint="$out/run" "$file" 2>/dev/null)"

echo; echo "4. All of the unheard voices (training and evaluation took $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s)"
echo "Next: jaxspeech report $out/run                          a page with curves, transcripts and players"
echo "      jaxspeech transcribe --checkpoint=$out/run FILE …   your own audio (it knows numbers and commands only)"
echo "      docs/getting_started.md                             your own data, Moonshine tiny, GPUs"
jaxspeech evaluate --checkpoint="$out/run" --manifest="$out/data/dev.jsonl" --json

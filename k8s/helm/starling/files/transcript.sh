# $1 is a recording, the others are phrases that have to come in their order. Runs as `sh -eu`.
recording=$1
shift
transcript=$(starling transcribe --quiet --realtime ${MODEL:+--model "$MODEL"} "$recording")
printf '%s\n' "$transcript"
rest=$(printf '%s' "$transcript" | tr '[:upper:]\n' '[:lower:] ' | tr -cd '[:alnum:] ' | tr -s ' ')
for phrase in "$@"; do
  case $rest in
    *"$phrase"*) rest=${rest#*"$phrase"} ;;
    *) echo "missing, or not in its place: $phrase" >&2; exit 1 ;;
  esac
done
echo "all $# phrases came, in their order"

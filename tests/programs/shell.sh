# root: base
# platforms: systrap ptrace
# timeout: 30

# Loops, pipes, here-documents, traps, background jobs, wait.
for i in 1 2 3; do echo "loop $i"; done
i=0; while [ $i -lt 200 ]; do i=$((i + 1)); done; echo "counted $i"
seq 1 1000 | grep 7 | sort -r | head -n 3 | tr '\n' ' '; echo
cat <<END | sed 's/a/b/'
a here-document with $i
END
(exit 7); echo "status $?"
sh -c 'kill -TERM $$'; echo "killed $?"
trap 'echo trapped USR1' USR1
kill -USR1 $$
trap 'echo on exit' EXIT
(sleep 0.2; echo background) & wait $!; echo "waited $?"
sleep 30 & p=$!; kill $p; wait $p; echo "killed job $?"
for n in 1 4 7; do (sleep 0.$n; echo "job $n") & done
wait
echo "substitution $(echo inner $(echo nested))"
yes | head -n 100000 | wc -l
dd if=/dev/zero bs=64k count=64 2>/dev/null | wc -c
mkfifo /tmp/fifo; (echo through the fifo > /tmp/fifo) & cat /tmp/fifo; wait
exec 3<<END
from descriptor 3
END
read -r line <&3; echo "$line"
ls /nonexistent 2>/dev/null; echo "ls $?"
umask 077; touch /tmp/private; stat -c %a /tmp/private
set -- a b c; shift; echo "$# $*"
echo "$0"; command -v sh

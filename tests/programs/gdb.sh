# platforms: systrap
# timeout: 120

# gdb: run to the end, break points, watch points, single steps, memory, threads, a crash, a core file.
cd /root
cat > hello.c <<'END'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
int counter;
void *work(void *p) { for (int i = 0; i < 1000; i++) __atomic_add_fetch(&counter, 1, 5); return p; }
int add(int a, int b) { int c = a + b; counter = c; return c; }
int main(int argc, char **argv) {
    int s = 0;
    for (int i = 0; i < 5; i++) s = add(s, i);
    pthread_t t; pthread_create(&t, NULL, work, NULL); pthread_join(t, NULL);
    printf("sum %d counter %d\n", s, counter); fflush(stdout);
    if (argc > 1) *(int *)8 = 1;
    return s;
}
END
gcc -g -O0 -no-pie -pthread -o hello hello.c
# Addresses of the stack and of libraries and numbers of processes differ from run to run, and so does the
# moment in which gdb hears of a thread.
tidy() { sed -E 's/0x7[ef][0-9a-f]{10}/ADDRESS/g; s/LWP [0-9]+/LWP N/g; s/process [0-9]+/process N/g; s/Target Id +Frame/Target Id Frame/' | grep -Ev '^\[(Thread .* exited|New .*|Switching to .*)\]$'; }
gdb -q -batch -ex run ./hello 2>/dev/null | tidy
gdb -q -batch -ex 'set can-use-hw-watchpoints 0' -ex 'break add if b == 3' -ex run -ex bt -ex 'info locals' -ex 'print a + b' -ex finish -ex 'watch counter' -ex continue -ex 'print counter' -ex kill ./hello 2>/dev/null | tidy
gdb -q -batch -ex 'break main' -ex run -ex next -ex step -ex stepi -ex 'print $eflags' -ex 'set var i = 3' -ex 'delete' -ex continue ./hello 2>/dev/null | tidy
gdb -q -batch -ex run -ex bt -ex 'info threads' -ex 'print $_siginfo.si_signo' --args ./hello crash 2>/dev/null | tidy
gdb -q -batch -ex 'break main' -ex run -ex 'watch counter' -ex continue -ex continue -ex bt -ex kill ./hello 2>/dev/null | tidy
./hello > /dev/null; echo "status $?"
# A core file. Where the host may not write one, or names it otherwise, gdb writes one of the same moment.
if ulimit -c unlimited 2>/dev/null && [ "$(cat /proc/sys/kernel/core_pattern)" = core ]; then
    "$PWD/hello" crash > /dev/null 2>&1
else
    gdb -q -batch -ex run -ex 'generate-core-file core' --args ./hello crash > /dev/null 2>&1
fi
gdb -q -batch -ex bt -ex 'info threads' -ex 'print counter' -ex 'print $_siginfo.si_signo' ./hello core 2>/dev/null | tidy

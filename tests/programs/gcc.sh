# platforms: systrap ptrace
# timeout: 240

# gcc -O2 of a small program, static and dynamic, and a make -j2 of twenty files.
set -e
cd /root
cat > hello.c <<'END'
#include <stdio.h>
int main(int argc, char **argv) { printf("hello %d %s\n", argc, argv[argc - 1]); return 3; }
END
gcc -O2 -Wall -o hello hello.c
./hello world || echo "status $?"
gcc -O2 -static -o static hello.c
./static also || echo "status $?"
gcc -O2 -S -o - hello.c | grep -c .
mkdir project && cd project
for i in $(seq 1 20); do
    printf '#include <math.h>\n#include <stdio.h>\ndouble f%d(double x) { double s = 0; for (int i = 1; i < %d; i++) s += sqrt(x + i); return s; }\n' $i $((i * 10)) > f$i.c
done
{ echo '#include <stdio.h>'; for i in $(seq 1 20); do echo "double f$i(double);"; done
  echo 'int main(void) { double s = 0;'; for i in $(seq 1 20); do echo "s += f$i($i);"; done
  printf '%s\n' 'printf("%.3f\n", s); return 0; }'; } > main.c
printf 'OBJECTS := $(patsubst %%.c,%%.o,$(wildcard *.c))\nprogram: $(OBJECTS)\n\tgcc -o $@ $^ -lm\n%%.o: %%.c\n\tgcc -O2 -c -o $@ $<\n' > Makefile
# Two jobs at once print in any order.
make -j2 | sort
./program
make
touch f3.c && make -j2

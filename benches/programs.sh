# Real programs, timed from inside: prints `NAME NANOSECONDS` for each. Runs under bash in the full root.
set -e
measure() {
    local name=$1 best= start end each
    shift
    for _ in 1 2 3; do
        start=${EPOCHREALTIME/./}
        "$@" > /dev/null
        end=${EPOCHREALTIME/./}
        each=$(((end - start) * 1000))
        if [ -z "$best" ] || [ "$each" -lt "$best" ]; then best=$each; fi
    done
    echo "$name $best"
}
cd /tmp
printf '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n' > hello.c
git init -q repository
cp -r /usr/share/perl5 repository/
git -C repository add .
git -C repository -c user.name=a -c user.email=a@example.test commit -q -m first
clone() { rm -rf clone && git clone -q --no-local repository clone; }
measure find-usr find /usr -type f
measure python-start python3 -c pass
measure gcc-hello gcc -O2 -o hello hello.c
measure git-clone clone

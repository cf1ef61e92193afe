# root: base
# platforms: systrap ptrace
# timeout: 120
# gofer: yes

# coreutils over a real tree: list, sort, hash, copy, move, link, measure, date, dd.
set -e
cd /root
ls -lR --time-style=+%s /usr/lib/python3 /etc | sha256sum
ls /usr/bin | sort -r | sha256sum
cd /usr/bin && sha256sum [a-d]* | sha256sum
cd /usr/share && find doc -type f | sort | head -n 200 | tar -cf - -T - | sha256sum
cd /root
cp -a /etc copy
diff -r --no-dereference /etc copy && echo "the copy is the same"
(cd /etc && find . -exec stat -c '%n %A %u %g %s %Y' {} + | sort) > a
(cd copy && find . -exec stat -c '%n %A %u %g %s %Y' {} + | sort) > b
# The size of a directory is the file system's own affair.
grep -v ' d' a > a1; grep -v ' d' b > b1; cmp a1 b1 && echo "attributes too"
mv copy moved; test ! -e copy && ls moved | wc -l
ln moved/passwd hard; ln -s moved/passwd soft; stat -c '%h %N' hard soft
touch -d '2001-02-03 04:05:06.789 UTC' hard; TZ=UTC stat -c '%y' hard moved/passwd
touch -r hard soft2; stat -c %Y soft2
dd if=/dev/zero of=big bs=1M count=20 2>/dev/null; stat -c '%s' big; sha256sum < big
dd if=/dev/urandom of=hole bs=1 count=1 seek=10M 2>/dev/null; stat -c %s hole
truncate -s 5 big; wc -c < big
seq 1 200000 | shuf --random-source=/usr/bin/python3.11 | sort -n | md5sum
seq 1 100000 | split -l 30000 - part.; wc -l part.* | tail -n 1
du -s --apparent-size -b moved/passwd | cut -f 1
mkdir -p d/e/f && rmdir -p d/e/f && echo removed
chmod 640 hard; chown 12:34 hard; stat -c '%a %u:%g' hard
paste -d, a b | head -n 3 | cut -d' ' -f 1; comm -12 a1 b1 | wc -l; join -j 1 a1 b1 | wc -l
tail -c 10 /etc/passwd | od -c; base64 /etc/hostname; tac /etc/group | head -n 1; nl /etc/hostname
test -r /etc/passwd -a ! -w /nonexistent && echo tested
printf '%s|%5.2f|%x\n' text 3.14159 255
env -i A=1 env; id; uname -sm; pwd; nproc > /dev/null; date -u -d @0 +%FT%T
timeout 0.2 sleep 5 || echo "timeout $?"

# root: base
# platforms: systrap ptrace
# timeout: 180

# tar with xz, zstd and gzip, there and back.
set -e
cd /tmp
tree=usr/lib/python3.11/asyncio
tar -C / --sort=name -cf plain.tar $tree
for tool in xz zstd gzip; do
    $tool -q -k -c plain.tar > packed.$tool
    $tool -d -c packed.$tool | cmp - plain.tar && echo "$tool round trip"
done
xz -T2 -c plain.tar | xz -d | sha256sum
zstd -q -T2 -c plain.tar | zstd -q -d | sha256sum
mkdir out && tar -C out -xJf packed.xz
diff -r --no-dereference /$tree out/$tree && echo "same tree"
tar -tf plain.tar | wc -l
tar -C / --sort=name -I 'zstd -q -T0' -cf - $tree | tar -I zstd -tf - | sha256sum

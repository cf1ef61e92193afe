# timeout: 60
# oracle: none

# Images that are based on others, or compressed: what `image` says of them, and what is missing when one is gone.

set -e
trap 'oci delete --force box >/dev/null 2>&1 || true' EXIT
bundle box '{}' sh -c 'head -c 3000000 /dev/zero | tr "\0" x > /tmp/file; x=$(cat /tmp/file); echo ready > /tmp/ready; while :; do sleep 0.1; done'
says() {
    oci image inspect "$1" | python3 -c 'import json, sys; i = json.load(sys.stdin); print(i["compression"], i["bases"], i["restoresHere"])'
}
size() { stat -c %b "$1/pages"; }
expect() { test "$2" = "$3" || { echo "$1: $2, not $3"; exit 1; }; }
oci run --detach --bundle box box > /dev/null < /dev/null
eventually oci exec box cat /tmp/ready
oci checkpoint --leave-running --image-path images/first box
oci checkpoint --leave-running --image-path images/second --base images/first box
oci checkpoint --leave-running --image-path images/third --base images/second box
for kind in lz4 zstd; do
    oci checkpoint --leave-running --image-path "images/$kind" --compression "$kind" box
    expect "$kind" "$(says "images/$kind")" "$kind 0 True"
    test "$(($(size "images/$kind") * 2))" -lt "$(size images/first)"
done
oci checkpoint --image-path images/fourth --base images/third --compression lz4 box
expect first "$(says images/first)" "none 0 True"
expect fourth "$(says images/fourth)" "lz4 3 True"
test "$(($(size images/third) * 4))" -lt "$(size images/first)"
# They find each other when all of them are moved.
mv images moved
for image in first second third fourth lz4 zstd; do
    expect "$image" "$(oci image verify "moved/$image")" "the image is sound"
    oci restore --detach --bundle box --image-path "moved/$image" box > /dev/null < /dev/null
    expect "$image" "$(oci exec box sh -c 'tr -d x < /tmp/file | wc -c; stat -c %s /tmp/file' | tr '\n' ' ')" "0 3000000 "
    oci delete --force box
done
fails() {
    if oci restore --detach --bundle box --image-path moved/third box > said 2>&1 < /dev/null; then echo "$1: it restores"; exit 1; fi
    grep -q "$2" said || { echo "$1: $(cat said)"; exit 1; }
}
mv moved/first moved/gone
fails 'a base that is gone' 'third/base/base/pages: No such file'
cp -r moved/second moved/first
fails 'another base' 'image 2 that it is based on: pages: it '
rm -r moved/first
mv moved/gone moved/first
# A base that is compressed is refused, and nothing is left of the image.
oci restore --detach --bundle box --image-path moved/third box > /dev/null < /dev/null
if oci checkpoint --leave-running --image-path moved/fifth --base moved/lz4 box 2> said; then echo 'a compressed base is taken'; exit 1; fi
grep -q 'the base is compressed' said
expect 'what is left' "$(ls -A moved | tr '\n' ' ')" 'first fourth lz4 second third zstd '
expect state "$(state box)" running

# timeout: 300

# 200 containers, 8 at a time, in the ways to make one. What stays of them is looked for after every case.
bundle box '{"linux": {"cgroupsPath": null}}' sh -c 'echo hello; exit 3'
bundle long '{"linux": {"cgroupsPath": null}}' sleep 1000
one() {
    id=many-$1
    case $(($1 % 4)) in
        0) oci run --bundle box "$id" ;;
        1) oci create --bundle long "$id" && oci start "$id" && oci kill "$id" KILL && eventually is "$id" stopped && oci delete "$id" ;;
        2) oci create --bundle box "$id" && oci start "$id" && eventually is "$id" stopped && oci delete "$id" ;;
        3) oci run -d --bundle long "$id" && oci exec "$id" sh -c 'exit 4'; echo "exec $?"; oci delete --force "$id" ;;
    esac
    echo "kind $(($1 % 4)) status $?"
}
worker() {
    number=$1
    while [ "$number" -lt 200 ]; do
        one "$number"
        number=$((number + 8))
    done > "out-$1" 2>&1
}
for w in 0 1 2 3 4 5 6 7; do worker $w & done
wait
cat out-* | sort | uniq -c
oci list -q

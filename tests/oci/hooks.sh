# oracle: none

# Hooks, at the points that the specification names; runc runs some of them elsewhere.
cat > hook <<END
#!/bin/sh
state=\$(python3 -c 'import json, sys; s = json.load(sys.stdin); print(s["id"], s["status"], s.get("pid", 0) > 0)')
echo "\$1 \$state \$VARIABLE" >> $WORK/log
END
chmod 755 hook
hooks=$(python3 -c '
import json, sys
kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
print(json.dumps({k: [{"path": sys.argv[1] + "/hook", "args": ["hook", k], "env": ["PATH=/usr/bin:/bin", "VARIABLE=given"]}] for k in kinds}))' "$WORK")
bundle box "{\"hooks\": $hooks}" sleep 1000
expect() {
    sed 's/ [a-z]* True / /; s/ [a-z]* False / /' log | tr '\n' ';' > got
    test "$(cat got)" = "$1" || { cat log; exit 1; }
    : > log
}
set -e
oci create --bundle box box >/dev/null
expect 'prestart box given;createRuntime box given;createContainer box given;'
oci start box
expect 'startContainer box given;poststart box given;'
oci kill box KILL
eventually is box stopped
oci delete box
expect 'poststop box given;'
# A failure before the start is one of the operation, a later one is not.
for kind in prestart createRuntime createContainer; do
    bundle bad "{\"hooks\": {\"$kind\": [{\"path\": \"/bin/sh\", \"args\": [\"sh\", \"-c\", \"echo the reason >&2; exit 3\"]}]}}" true
    if oci create --bundle bad bad 2> error >/dev/null; then exit 1; fi
    cat error
    grep -q 'the reason' error
done
bundle late '{"hooks": {"poststart": [{"path": "/bin/false"}], "poststop": [{"path": "/bin/false"}]}}' true
oci create --bundle late late >/dev/null
oci start late
eventually is late stopped
oci delete late
bundle slow '{"hooks": {"prestart": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]}}' true
if oci create --bundle slow slow 2> error >/dev/null; then exit 1; fi
cat error
test -z "$(oci list -q)"

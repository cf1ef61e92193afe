# timeout: 60

# What can't work: statuses, and that nothing stays of it.

bundle box '{}' true
for id in '' 'a b' '../x' '.' '..' 'a/b' 'a;b'; do
    status oci create --bundle box "$id" 2>/dev/null
    status oci state "$id" 2>/dev/null
    status oci delete "$id" 2>/dev/null
done
status oci create --bundle /no/such/directory box 2>/dev/null
mkdir empty; status oci create --bundle empty box 2>/dev/null
mkdir broken; echo '{ "ociVersion": ' > broken/config.json; status oci create --bundle broken box 2>/dev/null
bundle missing '{"root": {"path": "/no/such/root"}}' true; status oci create --bundle missing box 2>/dev/null
bundle command '{}' /no/such/command; status oci create --bundle command box 2>/dev/null
bundle notexec '{}' /etc/passwd; status oci create --bundle notexec box 2>/dev/null
bundle noargs '{}'; status oci create --bundle noargs box 2>/dev/null
bundle nocwd '{"process": {"cwd": "relative"}}' true; status oci create --bundle nocwd box 2>/dev/null
bundle hook '{"hooks": {"createRuntime": [{"path": "/bin/false"}]}}' true; status oci create --bundle hook box 2>/dev/null
bundle mount '{"mounts": [{"destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["bind"]}]}' true
status oci create --bundle mount box 2>/dev/null
# Their help may be what it likes.
(oci create; echo "status $?" >&3; oci state; echo "status $?" >&3) 3>&1 >/dev/null 2>&1
oci list -q
# The log, as shims read it.
status oci --log log --log-format json create --bundle command box 2>/dev/null
python3 -c '
import json
entries = [json.loads(line) for line in open("log")]
last = entries[-1]
print(sorted(last), last["level"], "/no/such/command" in last["msg"])'
status oci --log log.text --log-format text state none 2>/dev/null
grep -c level=error log.text
# Ids and names that Linux does not take, a value of the wrong kind, and capabilities of a kernel that is yet to come.
bundle nouid '{"process": {"user": {"uid": 4294967295, "gid": 0}}}' true; status oci create --bundle nouid box 2>/dev/null
bundle nogid '{"process": {"user": {"uid": 0, "gid": 4294967295}}}' true; status oci create --bundle nogid box 2>/dev/null
bundle longname "{\"hostname\": \"$(printf 'x%.0s' $(seq 65))\"}" true; status oci create --bundle longname box 2>/dev/null
bundle kind '{"process": {"user": {"uid": "root"}}}' true; status oci create --bundle kind box 2>/dev/null
bundle caps '{"process": {"capabilities": {"bounding": ["CAP_CHOWN", "CAP_FROB"], "permitted": ["CAP_CHOWN", "CAP_FROB"],
    "effective": ["CAP_CHOWN", "CAP_FROB"]}}}' grep CapEff /proc/self/status
status oci run --bundle caps box 2>/dev/null
oci list -q

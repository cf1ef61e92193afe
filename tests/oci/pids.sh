# A limit of tasks is one of the container's own tasks. What stands behind them on the host does not count.

count='use strict; use Errno; $| = 1;
my ($n, @children) = (0);
while (defined(my $pid = fork)) { if (!$pid) { sleep 100; exit } push @children, $pid; last if ++$n > 60 }
print "$n more, ", $!{EAGAIN} ? "EAGAIN" : $!, "\n";
kill 9, $children[0]; waitpid $children[0], 0;
my $again = fork; if (defined $again && !$again) { sleep 100; exit }
print defined $again ? "one for one\n" : "none: $!\n"; push @children, $again;
# A zombie counts until it is waited for.
kill 9, $children[1]; select undef, undef, undef, 0.3;
print defined(fork) ? "" : "a zombie counts\n";
waitpid $children[1], 0; kill 9, @children; 1 while wait > 0;
print "none left\n";'
bundle box '{"linux": {"resources": {"pids": {"limit": 30}}}}' perl -e "$count"
status oci run --bundle box box
bundle free '{}' perl -e "$count"
oci run --bundle free free

# Another limit, and what of it is to be seen outside.
bundle box '{"linux": {"resources": {"pids": {"limit": 100}}}}' sleep 1000
oci create --bundle box box >/dev/null
oci start box
status oci update --pids-limit 40 box
for i in 1 2 3; do oci exec -d box sleep 1000; done
oci ps box | grep -c sleep
oci events --stats box > stats
python3 -c 'import json; print(json.load(open("stats"))["data"]["pids"])'
oci exec box perl -e '$| = 1; $n = 0; while (defined($p = fork)) { if (!$p) { sleep 100; exit } $n++ } print "$n more\n"; kill 9, 0' 2>/dev/null
oci kill --all box KILL 2>/dev/null; eventually is box stopped
status oci delete box

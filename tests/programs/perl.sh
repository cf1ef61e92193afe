# root: base
# platforms: systrap ptrace
# timeout: 60

# Text, processes, sockets, files and signals in Perl.
exec perl -w - <<'END'
use strict; use POSIX qw(:sys_wait_h); use Socket; use IO::Select; use Fcntl qw(:flock); use File::Temp; use Time::HiRes qw(sleep);
$| = 1;
my %count; open my $f, '<', '/etc/passwd' or die; while (<$f>) { $count{(split /:/)[6] =~ s/\s+//r}++ } close $f;
print map { "$_ $count{$_}\n" } sort keys %count;
print scalar(`echo from a shell; exit 3`), $? >> 8, "\n";
my @pids = map { my $n = $_; my $p = fork // die; if (!$p) { exit $n } $p } 1 .. 10;
print join(' ', map { waitpid $_, 0; $? >> 8 } @pids), "\n";
pipe my $r, my $w or die; if (!fork) { close $r; print $w "line $_\n" for 1 .. 1000; exit 0 } close $w;
my $lines = () = <$r>; wait; print "$lines lines\n";
socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; syswrite $a, "over a socket"; sysread $b, my $text, 100; print "$text\n";
print scalar(IO::Select->new($b)->can_read(0.05)), " ready\n";
local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; sleep 5; }; print "caught $@";
local $SIG{USR1} = sub { print "usr1\n" }; kill 'USR1', $$;
my $t = File::Temp->new; flock $t, LOCK_EX or die; print $t "x" x 1000; seek $t, 0, 0; print -s $t, "\n";
my $sum = 0; $sum += $_ ** 2 for 1 .. 200000; print "$sum\n";
opendir my $d, '/etc' or die; print scalar(grep { !/^\./ } readdir $d) > 20 ? "many\n" : "few\n";
system 'sh', '-c', 'kill -TERM $$'; print $? & 127, "\n";
exec 'echo', 'the end';
END

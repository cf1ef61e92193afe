# needs: docker compose
# timeout: 120

# A stack of services by docker-compose: networks, names, a volume, health, dependencies, two of one kind, restarts.
mkdir scripts
cat > scripts/db <<'EOF'
use IO::Socket;
my $socket = IO::Socket::INET->new(LocalPort => 5432, Listen => 5, ReuseAddr => 1) or die;
while (my $client = $socket->accept) {
    my $word = $client->getline // next;
    open my $file, ">>", "/data/count"; print $file "x"; close $file;
    print $client "request " . (-s "/data/count") . "\n";
}
EOF
cat > scripts/ask <<'EOF'
use IO::Socket;
my $socket = IO::Socket::INET->new(shift) or die "$@\n";
print $socket "word\n"; print $socket->getline;
EOF
cat > scripts/app <<'EOF'
use IO::Socket;
my $socket = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die;
while (my $client = $socket->accept) {
    my $db = IO::Socket::INET->new("db:5432");
    print $client "$ENV{GREETING} ", $db && print($db "word\n") ? $db->getline : "no database\n";
}
EOF
cat > docker-compose.yml <<EOF
version: "2.4"
x-of-all: &all { image: "deb:1", runtime: "$RUNTIME", volumes: [ "./scripts:/s:ro" ], stop_signal: SIGKILL }
services:
  db:
    <<: *all
    command: perl /s/db
    volumes: [ "./scripts:/s:ro", "data:/data" ]
    mem_limit: 100m
    healthcheck: { test: "grep -q :1538 /proc/net/tcp", interval: 300ms, retries: 60 }
    networks: [ back ]
  app:
    <<: *all
    command: perl /s/app
    environment: { GREETING: hello }
    depends_on: { db: { condition: service_healthy } }
    restart: unless-stopped
    networks: { back: {}, front: { aliases: [ www ] } }
    scale: 2
  client:
    <<: *all
    command: perl /s/ask www:80
    depends_on: [ app ]
    networks: [ front ]
volumes: { data: {} }
networks: { back: { internal: true }, front: {} }
EOF
compose() { docker-compose -p stack --ansi never "$@"; }
client() { compose run --rm client "$@" 2>/dev/null; }
compose up -d db app 2>/dev/null
docker ps --format '{{.Names}} {{.Status}}' | sed 's/Up[^(]*/Up /' | sort
for _ in 1 2 3; do client; done
client sh -c 'getent hosts db || echo "not in this network"; getent ahostsv4 www | grep -c STREAM'
compose exec -T app sh -c 'echo $GREETING; getent hosts db | wc -l'
compose restart -t 0 db 2>/dev/null
healthy() { test "$(docker inspect -f '{{.State.Health.Status}}' stack_db_1)" = healthy; }
eventually healthy
client
docker exec stack_app_1 sh -c 'kill -9 1; kill 1' 2>/dev/null
docker kill stack_app_2 >/dev/null; docker start stack_app_2 >/dev/null
client
compose logs --no-color db | tail -n +2
compose down -t 1 -v 2>/dev/null
docker ps -aq; docker volume ls -q; docker network ls --format '{{.Name}}' | sort

//! What a network costs: a container on Docker's bridge, loaded from another one of runc's, with each runtime.
//!
//! The load is a program of its own (`benches/netload.c`), nginx and redis-benchmark; each row is more the better.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::table::Table;
use crate::test::oci::world::{Service, World};
use crate::test::{Ending, RootKind, ensure_root};

/// The rows: name, connections, what `netload` is asked for.
const ROWS: &[(&str, u32, &str)] = &[
    ("bytes-to-1", 1, "to"),
    ("bytes-to-8", 8, "to"),
    ("bytes-from-1", 1, "from"),
    ("bytes-from-8", 8, "from"),
    ("packets", 1, "packets"),
    ("answers", 1, "answers"),
    ("connects", 1, "connects"),
    ("http-1k", 100, "http"),
    ("http-1m", 100, "http"),
];
/// Seconds that each takes.
const SECONDS: &str = "2";
const TIMEOUT: Duration = Duration::from_secs(120);

/// The container that is loaded.
const SERVER: &str = r#"
docker rm -f bench-net >/dev/null 2>&1
docker run -d --name bench-net --runtime $RUNTIME -v $DIR:/bench:ro deb:1 sh -c '
mkdir -p /tmp/www /tmp/nginx
head -c 1024 /dev/zero > /tmp/www/http-1k
head -c 1048576 /dev/zero > /tmp/www/http-1m
echo "daemon off; pid /tmp/nginx/pid; error_log /tmp/nginx/log; events { worker_connections 1024; }
http { access_log off; sendfile on; keepalive_requests 1000000; server { listen 80; root /tmp/www; } }" > /tmp/nginx/conf
nginx -c /tmp/nginx/conf &
redis-server --protected-mode no --save "" >/dev/null &
exec /bench/netload serve' >/dev/null || exit 1
sleep 3
docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' bench-net
"#;

/// Another one, which loads it.
const CLIENT: &str = "exec docker run --rm --runtime runc -v $DIR:/bench:ro deb:1 /bench/netload $WHAT $ADDRESS $SECONDS $CONNECTIONS $PATH_OF";

const REDIS: &str =
    "exec docker run --rm --runtime runc deb:1 timeout 30 redis-benchmark -h $ADDRESS -t get -n 100000 -q --csv";

/// Measures with runc, moat and runsc, and prints the table.
pub fn run(moat: &Path, rounds: usize) -> Result<()> {
    let root = ensure_root(RootKind::Full)?;
    let directory = super::guest_root("netload")?.join("bin");
    let directory = directory.to_str().context("a path that is no text")?;
    let world = World::start(moat, &root, &[Service::Containerd, Service::Docker])?;
    if let Some(reason) = world.missing(Service::Docker) {
        println!("net: not measured: {reason}");
        return Ok(());
    }
    let mut columns: Vec<&'static str> = vec!["runc", "moat"];
    if super::has_runsc() {
        columns.push("runsc");
    }
    let mut table = Table::default();
    for _ in 0..rounds {
        for &runtime in &columns {
            let Some(address) = output(&world, SERVER, &[("RUNTIME", runtime), ("DIR", directory)])? else { continue };
            for (row, connections, what) in ROWS {
                let (path, connections) = (format!("/{row}"), connections.to_string());
                let variables = [
                    ("DIR", directory),
                    ("ADDRESS", address.as_str()),
                    ("SECONDS", SECONDS),
                    ("WHAT", what),
                    ("CONNECTIONS", connections.as_str()),
                    ("PATH_OF", path.as_str()),
                ];
                let number = output(&world, CLIENT, &variables)?;
                // A server that is not there would be waited for in each row.
                if number.is_none() {
                    break;
                }
                add(&mut table, row, runtime, number);
            }
            let answer = output(&world, REDIS, &[("ADDRESS", &address)])?;
            // The last line is "GET","requests a second",...
            let number = answer.as_deref().and_then(|a| a.lines().last()?.split('"').nth(3).map(str::to_owned));
            add(&mut table, "redis-get", runtime, number);
            world.clean()?;
        }
    }
    table.print(&columns);
    Ok(())
}

fn add(table: &mut Table, row: &'static str, runtime: &'static str, number: Option<String>) {
    match number.as_deref().map(str::parse::<f64>) {
        Some(Ok(number)) => {
            eprintln!("{runtime}: {row}: {number}");
            table.add(row, runtime, number);
        }
        other => eprintln!("{runtime}: {row}: no number: {other:?}"),
    }
}

/// What a script says; `None`, and why, if it fails.
fn output(world: &World, script: &str, variables: &[(&str, &str)]) -> Result<Option<String>> {
    let outcome = world.run(script, variables, TIMEOUT)?;
    if outcome.ending != Ending::Exited(0) {
        eprintln!("{}: {}", outcome.ending, String::from_utf8_lossy(&outcome.stderr));
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&outcome.stdout).trim().to_owned()))
}

# root: base
# platforms: systrap ptrace
# timeout: 180

# sqlite3 with 1,000 commits, each synced, with a rollback journal and with WAL.
exec python3 - <<'END'
import sqlite3
for mode in ("delete", "wal"):
    db = sqlite3.connect(f"/root/{mode}.db")
    print(db.execute(f"pragma journal_mode={mode}").fetchone())
    db.execute("create table t (id integer primary key, v text)")
    for i in range(1000):
        db.execute("insert into t (v) values (?)", (f"row {i}",)); db.commit()
    other = sqlite3.connect(f"/root/{mode}.db", timeout=0)
    db.execute("begin immediate")
    try:
        other.execute("begin immediate")
    except sqlite3.OperationalError as e:
        print(e)
    db.rollback()
    print(other.execute("select count(*), sum(id), max(v) from t").fetchone(), other.execute("pragma integrity_check").fetchone())
END

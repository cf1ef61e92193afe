# root: base
# platforms: systrap ptrace
# timeout: 60

# The sqlite3 command line.
cd /root
sqlite3 test.db <<'END'
create table t (id integer primary key, name text, value real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) insert into t select i, 'name' || i, i * 1.5 from n;
create index by_name on t (name);
select count(*), sum(value) from t;
select * from t where name = 'name777';
begin; delete from t where id % 2; rollback;
select count(*) from t;
vacuum; pragma integrity_check;
.mode csv
select * from t limit 3;
END
sqlite3 test.db .dump | sha256sum
for i in 1 2 3 4; do sqlite3 -cmd '.timeout 20000' test.db "update t set value = value + 1 where id < 100; select 'ok'" & done; wait
sqlite3 test.db 'select sum(value) from t where id < 100'

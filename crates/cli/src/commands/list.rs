//! `moat list` and `moat state`.

use std::fs;

use moat_runtime::container::ContainerInfo;
use moat_runtime::{Config, Container, Store};

use super::screen::Screen;
use crate::args::{List, ListFormat};

pub(super) fn state(config: &Config, id: &str) -> anyhow::Result<u8> {
    super::print_json(&super::load(config, id)?.info())?;
    Ok(0)
}

pub(super) fn run(config: &Config, flags: &List) -> anyhow::Result<u8> {
    let store = super::store(config);
    // Ids need no look at a sandbox.
    if flags.quiet {
        let ids: String = store.ids()?.iter().map(|id| format!("{id}\n")).collect();
        super::print(&ids)?;
        return Ok(0);
    }
    if flags.watch {
        Screen::open()?.run(flags.interval, None, || listed(&store, flags.format))?;
    } else {
        super::print(&listed(&store, flags.format)?)?;
    }
    Ok(0)
}

fn listed(store: &Store, format: ListFormat) -> anyhow::Result<String> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let infos: Vec<ContainerInfo> = Container::all(store)?
        .iter()
        .map(|container| ContainerInfo { owner: user_name(&users, container.state.owner), ..container.info() })
        .collect();
    Ok(match format {
        ListFormat::Table => table(&infos),
        // Go writes an empty list so.
        ListFormat::Json if infos.is_empty() => "null\n".into(),
        ListFormat::Json => format!("{}\n", serde_json::to_string(&infos)?),
    })
}

fn user_name(passwd: &str, uid: u32) -> String {
    let uid = uid.to_string();
    let known = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        // passwd(5): name, password, uid.
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    known.unwrap_or_else(|| format!("#{uid}"))
}

/// Columns 12 wide at least, 3 apart, as runc aligns them.
fn table(infos: &[ContainerInfo]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(infos.iter().map(|info| {
        let bundle = info.bundle.display().to_string();
        [
            info.id.clone(),
            info.pid.to_string(),
            info.status.to_string(),
            bundle,
            info.created.clone(),
            info.owner.clone(),
        ]
    }));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            // As runc's table, which scripts take apart by columns.
            *width = (*width).max(cell.chars().count() + 3).max(12);
        }
    }
    let mut text = String::new();
    for row in &rows {
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            text += cell;
            if index + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_runtime::container::OCI_VERSION;
    use moat_runtime::store::Status;

    fn info() -> ContainerInfo {
        ContainerInfo {
            oci_version: OCI_VERSION,
            id: "c1".into(),
            pid: 32313,
            status: Status::Created,
            bundle: "/tmp/life/b".into(),
            rootfs: "/r".into(),
            created: "2026-11-23T16:09:42.133781304Z".into(),
            annotations: Default::default(),
            owner: "root".into(),
        }
    }

    #[test]
    fn the_table_is_runcs() {
        let header = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
        assert_eq!(table(&[]), header);
        assert_eq!(
            table(&[info()]),
            "ID          PID         STATUS      BUNDLE        CREATED                          OWNER\n\
             c1          32313       created     /tmp/life/b   2026-11-23T16:09:42.133781304Z   root\n"
        );
    }

    #[test]
    fn json_has_runcs_fields_in_order() {
        assert_eq!(
            serde_json::to_string(&[info()]).unwrap(),
            r#"[{"ociVersion":"1.2.0","id":"c1","pid":32313,"status":"created","bundle":"/tmp/life/b","rootfs":"/r","created":"2026-11-23T16:09:42.133781304Z","owner":"root"}]"#
        );
    }

    #[test]
    fn owners() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbin:x:2:2::/:\n";
        assert_eq!((user_name(passwd, 0), user_name(passwd, 7)), ("root".into(), "#7".into()));
    }
}

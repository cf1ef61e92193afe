//! `moat image`: what is in an image, and whether it is sound.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use moat_host::features::Feature;
use moat_image::directory::{self, Image};
use moat_image::state::{MappableKind, OpenFileKind};
use serde_json::json;

use crate::args::ImageCommand;

pub(super) fn run(command: &ImageCommand) -> anyhow::Result<u8> {
    match command {
        ImageCommand::Inspect { directory } => inspect(directory),
        ImageCommand::Verify { directory } => verify(directory),
    }
}

fn read(place: &Path) -> anyhow::Result<Image> {
    Ok(Image::read(directory::open(place)?)?)
}

fn size(place: &Path, name: &str) -> anyhow::Result<(u64, u64)> {
    let path = place.join(name);
    let metadata = File::open(&path).and_then(|file| file.metadata()).with_context(|| path.display().to_string())?;
    Ok((metadata.len(), metadata.blocks().saturating_mul(512)))
}

fn inspect(place: &Path) -> anyhow::Result<u8> {
    let image = read(place)?;
    let (state_bytes, _) = size(place, directory::STATE)?;
    let (pages_bytes, pages_allocated) = size(place, directory::PAGES)?;
    // Numbers and names only: contents belong to the container.
    let (header, state) = (&image.header, &image.state);
    let shared = |m: &&moat_image::state::MappableState| matches!(m.kind, MappableKind::SharedAnonymous { .. });
    let donated = |f: &&moat_image::state::OpenFileState| {
        matches!(f.kind, OpenFileKind::Donated(_) | OpenFileKind::DonatedTo { .. })
    };
    let problems = problems(&image);
    super::print_json(&json!({
        "moatVersion": header.version,
        "createdSeconds": header.created_s,
        "platform": header.platform,
        "cpuFeatures": header.cpu_features,
        "stateBytes": state_bytes,
        "pagesBytes": pages_bytes,
        "pagesAllocatedBytes": pages_allocated,
        "compression": header.compression.name(),
        "bases": header.bases.len(),
        "addressSpacesWrittenAhead": header.ahead,
        "containers": state.containers.iter().map(|c| json!({ "id": c.id, "name": c.name })).collect::<Vec<_>>(),
        "processes": state.processes.len(),
        "threads": state.tasks.len(),
        "commands": state.tasks.iter().map(|t| String::from_utf8_lossy(&t.comm)).collect::<Vec<_>>(),
        "addressSpaces": state.memories.len(),
        "sharedMemories": state.mappables.iter().filter(shared).count(),
        "openFiles": state.open_files.len(),
        "donatedFiles": state.open_files.iter().filter(donated).count(),
        "mounts": state.mounts.iter().map(|m| String::from_utf8_lossy(&m.mountpoint)).collect::<Vec<_>>(),
        "restoresHere": problems.is_empty(),
        "problems": problems,
    }))?;
    Ok(0)
}

/// Why the image would not restore on this host, whatever its bundle.
fn problems(image: &Image) -> Vec<String> {
    // What only a restore can find out (mounts, files, the vDSO) is not looked for.
    let mut problems: Vec<String> = moat_host::cpu_features::missing(&image.header.cpu_features)
        .iter()
        .map(|name| format!("the processor has no {name}"))
        .collect();
    let goes_on = image.header.clocks.is_some() && moat_host::features::has(Feature::TimeNamespaces);
    if !goes_on && moat_host::clock::monotonic_ns() < image.state.clocks.monotonic_ns {
        problems.push("the host's monotonic clock is behind that of the checkpoint".into());
    }
    problems
}

fn verify(place: &Path) -> anyhow::Result<u8> {
    let image = read(place)?;
    image.verify_pages()?;
    super::print("the image is sound\n")?;
    Ok(0)
}

//! The loader on the fake platform, with real programs of this machine and with broken ones.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::elf::{
    AT_BASE, AT_ENTRY, AT_EXECFN, AT_PHDR, AT_PHNUM, AT_RANDOM, EM_X86_64, ET_DYN, ET_EXEC, Elf64Ehdr, Elf64Phdr, PF_R,
    PF_W, PF_X, PT_INTERP, PT_LOAD,
};
use moat_abi::fs::OpenFlags;
use moat_mm::fake::{FakeThread, new_process, run, vdso};
use moat_mm::{FileIdentity, MapFile, MapName, Mappable, PAGE_SIZE, Sharing, UserAddr, UserPtr};
use moat_platform::MapSource;
use moat_vfs::{Credentials, File, Seekable};
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

use super::stack::SecureMode;
use super::*;

/// A file with these contents.
struct TestFile(Arc<OwnedFd>);

impl File for TestFile {
    fn read(&self, _f: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        rustix::io::pread(&*self.0, buf, pos).map_err(|_| Errno::EIO)
    }
    fn seekable(&self) -> Seekable {
        Seekable::Yes
    }
    fn mappable(self: Arc<Self>, _f: &OpenFile) -> Result<Arc<dyn Mappable>> {
        Ok(Arc::new(TestFile(self.0.clone())))
    }
}

impl Mappable for TestFile {
    fn map_source(&self, what: &MapFile) -> Result<MapSource> {
        Ok(MapSource::File { fd: self.0.clone(), offset: what.offset, shared: what.sharing == Sharing::Shared })
    }
    fn identity(&self) -> FileIdentity {
        FileIdentity { dev: 1, ino: 1 }
    }
    fn describe(&self) -> MapName {
        MapName { identity: self.identity(), path: b"/program".to_vec() }
    }
}

fn file(contents: &[u8]) -> Arc<OpenFile> {
    let fd = rustix::fs::memfd_create("program", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::io::pwrite(&fd, contents, 0).expect("pwrite");
    moat_vfs::vfs::fake::vfs(moat_vfs::Registry::default()).open_anon(
        "program",
        Arc::new(TestFile(Arc::new(fd))),
        OpenFlags::empty(),
        &Arc::new(Credentials::root(moat_identity::UserNamespace::root())),
    )
}

/// Opens files of this machine.
fn open_host(path: &[u8]) -> Result<Arc<OpenFile>> {
    let path = std::str::from_utf8(path).map_err(|_| Errno::ENOENT)?;
    Ok(file(&std::fs::read(path).map_err(|_| Errno::ENOENT)?))
}

fn request(file: Arc<OpenFile>, argv: &[&str]) -> ExecRequest {
    let strings = |list: &[&str]| list.iter().map(|s| s.as_bytes().to_vec()).collect();
    ExecRequest {
        file,
        filename: b"/name".to_vec(),
        argv: strings(argv),
        envp: strings(&["A=1", "B=2"]),
        stack_limit: 8 << 20,
    }
}

fn params(aslr: Aslr) -> LoadParams {
    LoadParams {
        identity: Identity { uid: 1, euid: 2, gid: 3, egid: 4, secure: SecureMode::Secure },
        limits: MmLimits::default(),
        aslr,
        vdso: vdso(),
        comm: b"a rather long name".to_vec(),
    }
}

fn load(program: &Program, aslr: Aslr) -> Result<(MemoryManager, FakeThread, LoadedProgram)> {
    let (_, mm, mut thread) = new_process();
    let loaded = run(program.load(&params(aslr), &mut thread, &mm))?;
    Ok((mm, thread, loaded))
}

fn word(mm: &MemoryManager, addr: u64) -> u64 {
    mm.read(UserPtr::new(UserAddr::new(addr))).expect("a word of the stack")
}

fn string(mm: &MemoryManager, addr: u64) -> Vec<u8> {
    mm.read_cstr(UserAddr::new(addr), 4096).expect("a string of the stack")
}

fn auxv(mm: &MemoryManager, tag: u64) -> u64 {
    let bytes = mm.image().auxv;
    let words: Vec<u64> = bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().expect("8 bytes"))).collect();
    words.chunks_exact(2).find(|pair| pair[0] == tag).expect("the tag")[1]
}

#[test]
fn a_dynamic_program_of_this_machine_is_laid_out_as_linux_does() {
    let program = Program::read(request(open_host(b"/bin/true").expect("a file"), &["true", "x"]), &mut open_host)
        .expect("a program");
    for aslr in [Aslr::On, Aslr::Off] {
        let (mm, _thread, loaded) = load(&program, aslr).expect("loaded");
        let sp = loaded.stack_pointer;
        assert_eq!(sp % 16, 0);
        assert_eq!((word(&mm, sp), word(&mm, sp + 24)), (2, 0));
        assert_eq!(
            (string(&mm, word(&mm, sp + 8)), string(&mm, word(&mm, sp + 16))),
            (b"true".to_vec(), b"x".to_vec())
        );
        assert_eq!((string(&mm, word(&mm, sp + 32)), word(&mm, sp + 48)), (b"A=1".to_vec(), 0));
        assert_eq!(string(&mm, auxv(&mm, AT_EXECFN)), b"/name");
        let (image, base) = (mm.image(), auxv(&mm, AT_BASE));
        let mut cmdline = vec![0; 7];
        mm.read_bytes(image.args.start.into(), &mut cmdline).expect("arguments");
        assert_eq!((cmdline.as_slice(), image.env.end - image.env.start), (&b"true\0x\0"[..], 8));
        assert!(base != 0 && loaded.entry > base && image.code.contains(&auxv(&mm, AT_ENTRY)));
        let mut magic = [0; 4];
        mm.read_bytes(base.into(), &mut magic).expect("the interpreter");
        assert_eq!(magic, ELFMAG);
        let phdr: Elf64Phdr = mm.read(UserPtr::new(UserAddr::new(auxv(&mm, AT_PHDR)))).expect("program headers");
        assert!(phdr.p_type != 0 && auxv(&mm, AT_PHNUM) > 3);
        assert!(!mm.is_free(auxv(&mm, AT_RANDOM), 16) && mm.heap().is_empty() && mm.heap().start >= image.data.end);
    }
    let at = |aslr| load(&program, aslr).expect("loaded").2;
    assert_eq!(at(Aslr::Off), at(Aslr::Off));
    assert_ne!(at(Aslr::On), at(Aslr::On));
}

#[test]
fn scripts_lead_to_their_interpreter() {
    let script = file(b"#! /bin/true  -a b \n");
    let program = Program::read(request(script.clone(), &["zero", "one"]), &mut open_host).expect("a program");
    let expected: Vec<Vec<u8>> = ["/bin/true", "-a b", "/name", "one"].iter().map(|s| s.as_bytes().to_vec()).collect();
    assert_eq!(program.argv, expected);
    let mut forever = |_: &[u8]| Ok(file(b"#!/again\n"));
    assert_eq!(Program::read(request(script.clone(), &[]), &mut forever).err(), Some(Errno::ELOOP));
    let mut missing = |_: &[u8]| Err(Errno::ENOENT);
    assert_eq!(Program::read(request(script, &[]), &mut missing).err(), Some(Errno::ENOENT));
}

#[test]
fn arguments_have_limits() {
    let try_with =
        |argv: &[&str]| Program::read(request(open_host(b"/bin/true").expect("a file"), argv), &mut open_host).err();
    let long = "x".repeat(128 << 10);
    assert_eq!(try_with(&[&long]), Some(Errno::E2BIG));
    assert_eq!(try_with(&[&long[1..]]), None);
    assert_eq!(try_with(&vec![&long[1..]; 16]), Some(Errno::E2BIG));
    assert_eq!(try_with(&vec![""; 300_000]), Some(Errno::E2BIG));
}

/// A small static program: text, then data with a bss that goes on past its page.
fn small_elf(kind: u16) -> Vec<u8> {
    let mut header = Elf64Ehdr::new_zeroed();
    header.e_ident[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (header.e_type, header.e_machine, header.e_version) = (kind, EM_X86_64, 1);
    (header.e_phoff, header.e_phentsize, header.e_phnum) = (64, 56, 2);
    let base = if kind == ET_EXEC { 0x40_0000 } else { 0 };
    header.e_entry = base + 0x200;
    let segment = |flags, offset, vaddr, filesz, memsz| Elf64Phdr {
        p_type: PT_LOAD,
        p_flags: flags,
        p_offset: offset,
        p_vaddr: vaddr,
        p_paddr: vaddr,
        p_filesz: filesz,
        p_memsz: memsz,
        p_align: PAGE_SIZE,
    };
    let text = segment(PF_R | PF_X, 0, base, 0x300, 0x300);
    let data = segment(PF_R | PF_W, 0x1100, base + 0x2100, 0x80, 0x1800);
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(data.as_bytes());
    bytes.resize(0x2000, 0xee);
    bytes
}

#[test]
fn a_static_program_gets_its_segments_and_a_zeroed_bss() {
    for kind in [ET_EXEC, ET_DYN] {
        let program = Program::read(request(file(&small_elf(kind)), &[]), &mut open_host).expect("a program");
        let (mm, _thread, loaded) = load(&program, Aslr::On).expect("loaded");
        let base = loaded.entry - 0x200;
        assert!(kind == ET_DYN || base == 0x40_0000);
        let byte = |at: u64| mm.read::<u8>(UserPtr::new(UserAddr::new(base + at)));
        assert_eq!(
            (byte(0x2ff), byte(0x217f), byte(0x2180), byte(0x2fff), byte(0x38ff)),
            (Ok(0xee), Ok(0xee), Ok(0), Ok(0), Ok(0))
        );
        assert_eq!((byte(0x1000), byte(0x4000)), (Err(Errno::EFAULT), Err(Errno::EFAULT)));
        assert_eq!(auxv(&mm, AT_PHDR), base + 64);
        let image = mm.image();
        assert_eq!((image.code, image.data), (base..base + 0x300, base + 0x2100..base + 0x2180));
        // No argument becomes an empty one.
        assert_eq!(
            (word(&mm, loaded.stack_pointer), string(&mm, word(&mm, loaded.stack_pointer + 8))),
            (1, Vec::new())
        );
    }
}

#[test]
fn bad_headers_have_their_errno() {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = small_elf(ET_EXEC);
        change(&mut bytes);
        Program::read(request(file(&bytes), &[]), &mut open_host).and_then(|p| load(&p, Aslr::On).map(drop)).err()
    };
    let put = |at: usize, value: u64, len: usize| {
        move |b: &mut Vec<u8>| b[at..at + len].copy_from_slice(&value.to_le_bytes()[..len])
    };
    assert_eq!(with(&|_| {}), None);
    assert_eq!(with(&|b| b.truncate(0)), Some(Errno::ENOEXEC));
    assert_eq!(with(&|b| b.truncate(70)), Some(Errno::ENOEXEC));
    assert_eq!(with(&put(16, 1, 2)), Some(Errno::ENOEXEC), "ET_REL");
    assert_eq!(with(&put(18, 3, 2)), Some(Errno::ENOEXEC), "EM_386");
    assert_eq!(with(&put(54, 55, 2)), Some(Errno::ENOEXEC), "e_phentsize");
    assert_eq!(with(&put(56, 0, 2)), Some(Errno::ENOEXEC), "e_phnum");
    assert_eq!(with(&put(32, u64::MAX - 8, 8)), Some(Errno::ENOEXEC), "e_phoff");
    assert_eq!(with(&put(64 + 40, u64::MAX, 8)), Some(Errno::EINVAL), "p_memsz");
    assert_eq!(with(&put(64 + 16, 0x40_0001, 8)), Some(Errno::EINVAL), "p_vaddr off the page grid");
    assert_eq!(with(&put(64 + 16, 0, 8)), Some(Errno::EPERM), "p_vaddr below mmap_min_addr");
    assert_eq!(with(&put(64 + 56, u64::from(PT_INTERP), 4)), Some(Errno::ENOEXEC), "an interpreter's path without end");
    let interpreter = file(b"not an ELF file");
    let mut bytes = small_elf(ET_EXEC);
    bytes[120..124].copy_from_slice(&PT_INTERP.to_le_bytes());
    bytes[0x1100 + 0x7f] = 0;
    let outcome = Program::read(request(file(&bytes), &[]), &mut |_| Ok(interpreter.clone()));
    assert_eq!(outcome.err(), Some(Errno::ELIBBAD));
}

proptest! {
    #[test]
    fn no_header_makes_the_loader_panic(changes in proptest::collection::vec((0..184usize, any::<u8>()), 1..12), kind in any::<bool>()) {
        let mut bytes = small_elf(if kind { ET_EXEC } else { ET_DYN });
        for (at, value) in changes {
            bytes[at] = value;
        }
        // Mappings of many pages are costly on the fake platform only.
        if let Ok(program) = Program::read(request(file(&bytes), &["a"]), &mut open_host)
            && program.headers.span().end - program.headers.span().start < 1 << 24
        {
            let _ = load(&program, Aslr::On);
        }
    }
}

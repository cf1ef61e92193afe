//! What a guest writes into files and passes about them: programs, scripts, access lists, options of mounts.

use std::sync::Arc;

use moat_abi::elf::BINPRM_BUF_SIZE;
use moat_fs_tmpfs::{TmpOptions, new_memfd};
use moat_identity::UserNamespace;
use moat_loader::elf::{ElfHeaders, Role};
use moat_vfs::acl::Acl;
use moat_vfs::{Credentials, Registry};

/// The headers of a program and the name of its interpreter (execve(2)).
pub fn elf(data: &[u8]) {
    let vfs = moat_vfs::vfs::fake::vfs(Registry::default());
    let creds = Arc::new(Credentials::root(UserNamespace::root()));
    let Ok(file) = new_memfd(&vfs, b"program", 0, &creds) else { return };
    if !data.is_empty() && file.write(data).ok() != Some(data.len()) {
        return;
    }
    for role in [Role::Program, Role::Interpreter] {
        if let Ok(headers) = ElfHeaders::read(&file, role) {
            assert!(headers.max_align.is_power_of_two() && !headers.segments.is_empty());
            let span = headers.span();
            for segment in &headers.segments {
                assert!(segment.end() <= span.end, "a segment lies beyond the program's end");
            }
            let _ = (headers.exec_stack(), headers.interpreter_path(&file));
        }
    }
}

/// The first line of a script.
pub fn script(data: &[u8]) {
    let mut head = [0; BINPRM_BUF_SIZE];
    head.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    let _ = moat_loader::script::parse(&head);
}

/// An access control list as an extended attribute has it: what is taken is written back as it was understood.
pub fn acl(data: &[u8]) {
    if let Ok(Some(list)) = Acl::parse(data) {
        let again = Acl::parse(&list.encode()).ok().flatten().map(|l| l.encode());
        assert_eq!(again, Some(list.encode()));
        let _ = (list.mode(), list.is_mode(), list.with_mode(0o640).encode(), list.mode_of_new(0o777));
    }
}

/// The options of mount(2) for a tmpfs.
pub fn mount_options(data: &[u8]) {
    let _ = TmpOptions::of_machine(1 << 30).parse(data);
}

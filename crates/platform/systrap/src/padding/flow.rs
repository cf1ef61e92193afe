//! [`dead_ends()`]: padding inside a function, by the code that follows a site.
//!
//! Whoever comes from the site executes what follows it, instruction by instruction, so that it can be decoded: up to a jump, a return or
//! an instruction that always faults. The `nop`s behind that fill up to where the next label is to be, and are executed only by who
//! jumps to them: compilers and the assembler put no label there, and nothing nearby may lead there.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction};

use super::is_nops;

const BITS: u32 = 64;
/// How far `jmp rel8` leads, and so how far from padding it can be that leads there.
const SHORT_REACH: u64 = 128;
/// Bytes before that in which a decoder that has begun inside an instruction finds the next one.
const SETTLES: u64 = 32;
/// What the label behind padding is aligned to, at least.
const ALIGNED: u64 = 8;
/// Bytes of a jump on a condition that leads further; the last four are relative to what follows. Others have one less.
const FAR: u64 = 6;

/// Runs of `nop` on the site's page that nobody executes, from where to where. `page` is its address, `bytes` all of it.
pub fn dead_ends(page: u64, bytes: &[u8], behind: u64) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut at = behind;
    let reach = behind.saturating_add(SHORT_REACH);
    // Behind one piece of padding the next code begins, for it is there that its label is.
    while let Some(end) = end_of_flow(page, bytes, at).filter(|end| *end < reach) {
        let run = (end, end_of_nops(page, bytes, end));
        if run.0 == run.1 || !run.1.is_multiple_of(ALIGNED) {
            break;
        }
        if !is_led_to(page, bytes, run) {
            found.push(run);
        }
        at = run.1;
    }
    found
}

/// Instructions from an address on, if it is on the page.
fn decoder(page: u64, bytes: &[u8], at: u64) -> Option<Decoder<'_>> {
    let from = usize::try_from(at.checked_sub(page)?).ok()?;
    Some(Decoder::with_ip(BITS, bytes.get(from..)?, at, DecoderOptions::NONE))
}

/// Where the first instruction ends behind which nothing is executed, if all up to there can be decoded.
fn end_of_flow(page: u64, bytes: &[u8], at: u64) -> Option<u64> {
    for instruction in decoder(page, bytes, at)?.iter() {
        match instruction.flow_control() {
            _ if instruction.is_invalid() => return None,
            FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                return Some(instruction.next_ip());
            }
            // `ud2` and the like.
            FlowControl::Exception => return Some(instruction.next_ip()),
            _ if instruction.code() == Code::Hlt => return Some(instruction.next_ip()),
            _ => {}
        }
    }
    None
}

/// Where `nop`s end that begin at an address. One byte of its own may be meant to be executed or written over: a run of such is none.
fn end_of_nops(page: u64, bytes: &[u8], at: u64) -> u64 {
    let Some(decoder) = decoder(page, bytes, at) else { return at };
    let is_nop = |instruction: &Instruction| {
        let from = usize::try_from(instruction.ip().wrapping_sub(page)).ok();
        from.and_then(|from| bytes.get(from..from.checked_add(instruction.len())?)).is_some_and(is_nops)
    };
    let run: Vec<Instruction> = decoder.into_iter().take_while(is_nop).collect();
    // Compilers and the assembler fill up with as few as there can be.
    let long = run.iter().any(|instruction| instruction.len() > 1);
    run.last().filter(|_| long).map_or(at, Instruction::next_ip)
}

/// Whether a jump or a call on the page leads into a run.
fn is_led_to(page: u64, bytes: &[u8], (start, end): (u64, u64)) -> bool {
    let into = |target: u64| (start..end).contains(&target);
    // From anywhere, whether that is an instruction or not: bytes are such a one by accident in one of a million cases.
    let far = (page..).zip(bytes.windows(6)).any(|(at, bytes)| match bytes {
        [a, b, by @ ..] if matches!(b, 0xe8 | 0xe9) || *a == 0x0f && b & 0xf0 == 0x80 => {
            let by = <[u8; 4]>::try_from(by).map(i32::from_le_bytes).unwrap_or_default();
            into(at.wrapping_add(FAR).wrapping_add_signed(by.into()))
        }
        _ => false,
    });
    // By two bytes it is only by what is one: many pairs of bytes look like that. Where instructions begin shows soon, wherever one begins.
    let first = start.saturating_sub(SHORT_REACH).saturating_sub(SETTLES).max(page);
    let last = end.saturating_add(SHORT_REACH);
    far || decoder(page, bytes, first).is_none_or(|decoder| {
        decoder
            .into_iter()
            .take_while(|instruction| instruction.ip() < last)
            .any(|instruction| into(instruction.near_branch_target()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 0x7000_1000;
    const SITE: usize = 0x100;

    /// A page with code from the site on.
    fn page(code: &[u8]) -> Vec<u8> {
        let mut page = vec![0xf4; 4096];
        page[SITE..SITE + code.len()].copy_from_slice(code);
        page
    }

    fn found(page: &[u8]) -> Vec<(u64, u64)> {
        let at = |offset: u64| offset - (PAGE + SITE as u64);
        dead_ends(PAGE, page, PAGE + SITE as u64 + 2).into_iter().map(|(start, end)| (at(start), at(end))).collect()
    }

    /// read(2) of the C library, whose file has no table: `syscall; cmp rax, -4096; ja; ret`, nops, then the other half.
    const READ: [u8; 40] = [
        0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x5b, 0xc3, 0x66, 0x0f, 0x1f, 0x44, 0, 0, 0x0f, 0x1f,
        0x80, 0, 0, 0, 0, 0x48, 0x83, 0xec, 0x28, 0xeb, 0xfe, 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0xc3,
    ];

    #[test]
    fn nops_behind_a_return_are_dead() {
        assert_eq!(found(&page(&READ)), [(11, 24)]);
        let mut more = READ;
        // `nop` of ten bytes.
        more[29..].copy_from_slice(&[0xfe, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]);
        let mut page = page(&more);
        page[SITE + 30 - 1 + 11] = 0xc3;
        assert_eq!(found(&page), [(11, 24), (30, 40)]);
    }

    #[test]
    fn nops_that_are_executed_are_not() {
        // Nothing ends before them.
        let mut code = READ;
        code[10] = 0x90;
        assert_eq!(found(&page(&code)), []);
        // They end where no label would be put.
        let mut code = READ;
        code[17..24].copy_from_slice(&[0x66, 0x0f, 0x1f, 0x44, 0, 0, 0x48]);
        assert_eq!(found(&page(&code)), []);
        // Of one byte each: a place for somebody's own jump.
        let mut code = READ;
        code[11..24].fill(0x90);
        assert_eq!(found(&page(&code)), []);
    }

    #[test]
    fn what_is_jumped_to_is_not() {
        for (at, bytes) in [
            // By two bytes, before and behind.
            (SITE - 20, &[0xeb, 29][..]),
            (SITE + 24, &[0x74, 0xf3]),
            (SITE + 100, &[0xe8, 0xa8, 0xff, 0xff, 0xff]),
            // By five and six, from anywhere.
            (SITE + 0x800, &[0xe9, 0x06, 0xf8, 0xff, 0xff]),
            (0x10, &[0x0f, 0x84, 0xf5, 0, 0, 0]),
        ] {
            let mut page = page(&READ);
            page[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(found(&page), [], "{at:#x}");
        }
        // To the code behind them all jump.
        let mut page = page(&READ);
        page[SITE - 20..SITE - 18].copy_from_slice(&[0xeb, 42]);
        assert_eq!(found(&page), [(11, 24)]);
    }

    #[test]
    fn the_end_of_a_page_is_none() {
        for at in 0..64 {
            let mut page = vec![0x90; 4096];
            page[4096 - at..].copy_from_slice(&READ.repeat(2)[..at]);
            dead_ends(PAGE, &page, PAGE + 4096 - at as u64);
        }
        dead_ends(PAGE, &[0xc3], PAGE + 4096);
    }
}

//! The line discipline of a pseudo-terminal: writes and reads of both sides, changes of settings, flushes.

use moat_abi::tty::Termios2;
use moat_fs_devpts::LineDiscipline;
use moat_fs_devpts::ldisc::packet::{FlowAction, Flush, PacketMode};
use moat_fs_devpts::ldisc::{OUTPUT_LIMIT, PENDING_LIMIT};
use zerocopy::FromBytes;

use crate::input::Input;

/// More than both buffers and what an echo may add.
const MOST: usize = OUTPUT_LIMIT + PENDING_LIMIT + (64 << 10);

/// One byte says what is done, others with what.
pub fn terminal(data: &[u8]) {
    let (mut input, mut discipline) = (Input(data), LineDiscipline::new(Termios2::pty_default()));
    let mut buffer = vec![0; 4096];
    while let Some(what) = input.byte() {
        match what % 10 {
            0..=2 => {
                let n = usize::from(input.byte().unwrap_or_default());
                let _ = discipline.master_write(input.take(n));
            }
            3 => {
                let n = usize::from(input.byte().unwrap_or_default());
                let _ = discipline.slave_write(input.take(n));
            }
            4 => {
                let n = usize::from(input.byte().unwrap_or_default()).min(buffer.len());
                let _ = discipline.slave_read(buffer.get_mut(..n).unwrap_or_default());
            }
            5 => {
                let n = usize::from(input.byte().unwrap_or_default()).min(buffer.len());
                let _ = discipline.master_read(buffer.get_mut(..n).unwrap_or_default());
            }
            6 => {
                if let Ok((settings, _)) = Termios2::read_from_prefix(input.take(size_of::<Termios2>())) {
                    let _ = discipline.set_termios(settings);
                }
            }
            7 => {
                // One bit of the settings, which hit what matters more often than all of them.
                let mut settings = *discipline.termios();
                let bit = 1u32.wrapping_shl(u32::from(input.byte().unwrap_or_default()));
                match input.byte().unwrap_or_default() % 4 {
                    0 => settings.c_iflag ^= bit,
                    1 => settings.c_oflag ^= bit,
                    2 => settings.c_lflag ^= bit,
                    _ => settings.c_cflag ^= bit,
                }
                let _ = discipline.set_termios(settings);
            }
            8 => {
                let what = [Flush::Input, Flush::Output, Flush::Both];
                let which = what.into_iter().nth(usize::from(input.byte().unwrap_or_default() % 3));
                let _ = which.map(|which| discipline.flush(which));
            }
            _ => {
                let _ = discipline.inject(input.byte().unwrap_or_default());
                discipline.set_packet_mode(PacketMode::On);
                let _ = discipline.control_flow(FlowAction::StopOutput);
            }
        }
        let _ = (discipline.slave_poll(), discipline.master_poll(), discipline.read_rule());
        assert!(discipline.master_bytes() <= MOST && discipline.slave_bytes() <= MOST);
    }
}

//! Line disciplines in an image, and out of it.

use moat_abi::tty::{LocalFlags, Termios2};
use moat_image::ImageError;
use moat_image::state::LineDisciplineState;

use super::buffer::InputBuffer;
use super::echo::EchoQueue;
use super::packet::{FlowState, Packet};
use super::{Effects, LineDiscipline, OUTPUT_LIMIT, PENDING_LIMIT};

fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl LineDiscipline {
    /// All of it.
    #[must_use]
    pub fn save(&self) -> LineDisciplineState {
        let t = &self.termios;
        let (input, ends, finished) = self.input.save();
        let (echoes, marked, committed) = self.echo.save();
        LineDisciplineState {
            modes: [t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag],
            line: t.c_line,
            control: t.c_cc.to_vec(),
            speeds: (t.c_ispeed, t.c_ospeed),
            input,
            ends,
            finished,
            pending: self.pending.iter().copied().collect(),
            output: self.output.iter().copied().collect(),
            arrived: length(self.arrived),
            echoes,
            echoes_marked: length(marked),
            echoes_committed: length(committed),
            column: self.column,
            canon_column: self.canon_column,
            literal_next: self.literal_next,
            erasing: self.erasing,
            stopped: self.flow.save(),
            packet: self.packet.save(),
        }
    }

    /// The same out of an image.
    ///
    /// # Errors
    /// More than a buffer holds; places beyond them.
    pub fn restore(saved: &LineDisciplineState) -> Result<LineDiscipline, ImageError> {
        let wrong = |what: &str| ImageError::state(format!("a terminal's {what}"));
        let termios = Termios2::from_parts(saved.modes, saved.line, &saved.control, saved.speeds);
        let termios = termios.ok_or_else(|| wrong("control characters"))?;
        if saved.pending.len() > PENDING_LIMIT || saved.output.len() > OUTPUT_LIMIT {
            return Err(wrong("queues"));
        }
        // A line that ends before what is held is none: only reading without lines goes on behind it.
        let lines = termios.c_lflag & (LocalFlags::ICANON | LocalFlags::EXTPROC).bits() == LocalFlags::ICANON.bits();
        if lines && saved.finished < 0 {
            return Err(wrong("lines"));
        }
        let arrived = usize::try_from(saved.arrived).ok().filter(|n| *n <= saved.output.len());
        let echo = EchoQueue::restore(&saved.echoes, saved.echoes_marked, saved.echoes_committed);
        Ok(LineDiscipline {
            // As they were set: changing them would count what is held anew.
            termios: super::normalise(termios),
            input: InputBuffer::restore(&saved.input, &saved.ends, saved.finished).ok_or_else(|| wrong("input"))?,
            pending: saved.pending.clone().into(),
            output: saved.output.clone().into(),
            arrived: arrived.ok_or_else(|| wrong("output"))?,
            echo: echo.ok_or_else(|| wrong("echoes"))?,
            column: saved.column,
            canon_column: saved.canon_column,
            literal_next: saved.literal_next,
            erasing: saved.erasing,
            flow: FlowState::restore(saved.stopped),
            packet: Packet::restore(saved.packet),
            effects: Effects::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use moat_abi::tty::Termios2;

    use super::*;

    type Step = (u8, [u8; 3], usize);

    /// Does something to it; gives what comes out.
    fn step(tty: &mut LineDiscipline, (what, bytes, len): Step) -> Vec<u8> {
        let data: Vec<u8> = bytes.iter().copied().cycle().take(len).collect();
        let mut buf = vec![0; len];
        let n = match what {
            0 => return tty.master_write(&data).0.to_ne_bytes().to_vec(),
            1 => return tty.slave_write(&data).0.to_ne_bytes().to_vec(),
            2 => tty.slave_read(&mut buf).0,
            3 => tty.master_read(&mut buf).0,
            _ => {
                let mut t = *tty.termios();
                t.c_lflag ^= u32::from(bytes[0]) & 0x1f;
                let _ = tty.set_termios(t);
                None
            }
        };
        buf.truncate(n.unwrap_or(0));
        buf
    }

    fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
        proptest::collection::vec((0u8..5, proptest::prelude::any::<[u8; 3]>(), 0usize..3000), 0..20)
    }

    proptest::proptest! {
        /// One out of an image goes on as the one that went into it.
        #[test]
        fn what_is_restored_goes_on(before in steps(), after in steps()) {
            let mut tty = LineDiscipline::new(Termios2::pty_default());
            before.into_iter().for_each(|s| drop(step(&mut tty, s)));
            let mut again = LineDiscipline::restore(&tty.save()).expect("it was one");
            assert_eq!(again.save(), tty.save());
            for s in after {
                assert_eq!(step(&mut again, s), step(&mut tty, s));
            }
            assert_eq!(again.save(), tty.save());
        }

        /// Whatever is in an image: an error, or one that can be used.
        #[test]
        fn no_image_makes_it_panic(
            (modes, finished) in (proptest::prelude::any::<[u32; 4]>(), -5000i64..5000),
            (input, ends) in (0usize..5000, proptest::collection::vec(0u32..5000, 0..5)),
            (arrived, marked, committed) in (0u32..20, 0u32..20, 0u32..60),
            after in steps(),
        ) {
            let saved = LineDisciplineState {
                modes,
                control: vec![3; 19],
                input: vec![7; input],
                ends,
                finished,
                output: vec![1; 10],
                arrived,
                echoes: vec![moat_image::state::EchoState::EraseTab { columns: 200, from_line_start: true }; 10],
                echoes_marked: marked,
                echoes_committed: committed,
                column: u32::MAX,
                canon_column: u32::MAX,
                ..LineDisciplineState::default()
            };
            if let Ok(mut tty) = LineDiscipline::restore(&saved) {
                after.into_iter().for_each(|s| drop(step(&mut tty, s)));
                let _ = (tty.slave_bytes(), tty.master_bytes(), tty.save());
            }
        }
    }
}

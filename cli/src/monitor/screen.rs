//! A terminal that is drawn anew: the alternate screen, taken and given back as it was, whatever way the command ends.

use std::io::{self, Write as _};

use rustix::termios;

use crate::failure::Failure;

/// xterm's sequences, which every terminal of today knows, tmux and screen among them: the alternate screen, and no cursor.
const TAKE: &str = "\x1b[?1049h\x1b[?25l";
const GIVE_BACK: &str = "\x1b[?25h\x1b[?1049l";
/// Of a terminal that does not tell.
const USUAL: (usize, usize) = (80, 24);

/// The screen, as long as this is held.
#[derive(Debug)]
pub(super) struct Screen(());

impl Screen {
    pub(super) fn take() -> Result<Self, Failure> {
        write(TAKE)?;
        Ok(Self(()))
    }

    /// Draws these lines, which have no control sequences, cut to what the terminal shows by now.
    pub(super) fn draw(&self, lines: &[String]) -> Result<(), Failure> {
        write(&frame(lines, size()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = write(GIVE_BACK);
    }
}

/// Each line where the last frame's was, so that nothing flickers; the rest of each line and of the screen is cleared.
fn frame(lines: &[String], (width, height): (usize, usize)) -> String {
    let mut text = "\x1b[H".to_owned();
    for (number, line) in lines.iter().take(height).enumerate() {
        if number > 0 {
            text.push_str("\r\n");
        }
        text.extend(line.chars().take(width));
        text.push_str("\x1b[K");
    }
    text.push_str("\x1b[J");
    text
}

fn size() -> (usize, usize) {
    match termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL,
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_terminal() {
        let lines: Vec<String> = ["one → two", "three", "four"].map(str::to_owned).into();
        assert_eq!(
            frame(&lines, (5, 2)),
            "\x1b[Hone →\x1b[K\r\nthree\x1b[K\x1b[J",
            "cut in both directions, with no line too many that would scroll"
        );
    }
}

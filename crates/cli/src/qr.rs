//! A ticket as a QR code of half blocks. Never decides whether to show one, only whether it fits.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::render::Paint;

/// The code with its quiet zone, or `None` if it is wider than `width` columns or `text` is too long for one.
pub(crate) fn code(text: &str, width: usize, paint: Paint) -> Option<String> {
    // A screen has no scratches: the lowest correction level gives the smallest code.
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    // Light modules are drawn, dark ones left out: right on a dark terminal, and with colours on every one.
    let image = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .module_dimensions(1, 1)
        .build();
    if image.lines().next()?.chars().count() > width {
        return None;
    }
    let lines = image.lines().map(|line| {
        if paint.is_on() {
            format!("\x1b[38;5;231;48;5;16m{line}\x1b[0m\n")
        } else {
            format!("{line}\n")
        }
    });
    Some(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_quiet_zone_and_keeps_to_the_width() {
        let text = "a".repeat(150);
        let shown = code(&text, 200, Paint::new(false)).expect("fits");
        let width = shown.lines().next().expect("not empty").chars().count();
        assert!(shown.starts_with(&"█".repeat(width)), "the quiet zone is light");
        assert!(shown.lines().all(|line| line.chars().count() == width));
        assert!(code(&text, width, Paint::new(false)).is_some());
        assert!(code(&text, width - 1, Paint::new(false)).is_none());
    }

    #[test]
    fn what_no_code_can_hold_is_left_out() {
        assert!(code(&"a".repeat(5000), 10_000, Paint::new(false)).is_none());
    }
}

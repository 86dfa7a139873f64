//! A time in what Pacemaker's tools say.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// Seconds since 1970 of a [`moment`].
pub(super) fn seconds(text: &str) -> Option<u64> {
    u64::try_from(moment(text)?.unix_timestamp()).ok()
}

/// A time as Pacemaker writes it, `2026-11-24 15:10:50Z` or `2026-11-24 15:10:50 +01:00` (`crm_time_as_string` in its
/// `lib/common/iso8601.c`). Since 2.1.6 that of a fencing has a fraction of the second: `2026-11-24 15:10:50.123456Z`.
pub(super) fn moment(text: &str) -> Option<OffsetDateTime> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u16>().ok();
    let small = |from: usize, to: usize| number(from, to).and_then(|number| u8::try_from(number).ok());
    let month = Month::try_from(small(5, 7)?).ok()?;
    let date = Date::from_calendar_date(number(0, 4)?.into(), month, small(8, 10)?).ok()?;
    let (nanoseconds, zone) = match text.get(19..)?.strip_prefix('.') {
        Some(rest) => {
            let length = rest.find(|character: char| !character.is_ascii_digit())?;
            let (digits, zone) = rest.split_at(length);
            let missing = 9_usize.checked_sub(length).filter(|_| length > 0)?;
            (digits.parse::<u32>().ok()? * 10_u32.pow(missing.try_into().ok()?), zone)
        }
        None => (0, text.get(19..)?),
    };
    let clock = Time::from_hms_nano(small(11, 13)?, small(14, 16)?, small(17, 19)?, nanoseconds).ok()?;
    let offset = match zone.trim_start() {
        "Z" => UtcOffset::UTC,
        zone => {
            let sign = match zone.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let part = |text: &str| i8::try_from(text.parse::<u8>().ok()?).ok().map(|part| sign * part);
            UtcOffset::from_hms(part(hours)?, part(minutes)?, 0).ok()?
        }
    };
    Some(PrimitiveDateTime::new(date, clock).assume_offset(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_pacemaker_writes_them() {
        for text in [
            "2026-11-24 15:10:50Z",
            "2026-11-24 16:10:50 +01:00",
            "2026-11-24 09:40:50 -05:30",
            "2026-11-24 15:10:50.123456Z",
            "2026-11-24 16:10:50.999999 +01:00",
        ] {
            assert_eq!(seconds(text), Some(1_795_533_050), "{text}");
        }
        for text in [
            "",
            "2026-11-24",
            "2026-11-24 15:10:50",
            "2026-13-24 15:10:50Z",
            "Tue Nov 24 15:10:50 2026",
            "2026-11-24 15:10:50 --128:00",
            "ä026-11-24 15:10:50Z",
            "2026-11-24 15:10:50.Z",
            "2026-11-24 15:10:50.1234567890Z",
            "2026-11-24 15:10:50.123456",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}

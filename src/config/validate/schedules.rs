//! Schedules: other terms of the same limit at certain hours of the week.

use super::terms::{Place, Stated};
use super::{Check, Reported};
use crate::config::file;
use crate::config::frames::Span;
use crate::config::shape::{Setting, Spanned};
use crate::limit::algorithm::Algorithm;
use crate::limit::algorithm::zone::Zone;
use crate::limit::policy::{Limit, Terms};
use crate::limit::schedule::{ClockText, DAY, Days, Hours, Schedule, Schedules};

/// The most schedules of one limit.
const MOST: usize = 100;

impl Check<'_> {
    /// The schedules of a limit with these terms of its own, if it has any.
    pub(super) fn schedules(&mut self, place: Place<'_>, own: Option<&Terms>) -> Result<Option<Schedules>, Reported> {
        match &place.limit.schedules {
            Setting::Absent => Ok(None),
            Setting::Invalid => Err(Reported),
            Setting::Given { value, .. } if value.value.0.is_empty() => Ok(None),
            Setting::Given { value, .. } => self.given_schedules(&value.value.0, place, own).map(Some).ok_or(Reported),
        }
    }

    fn given_schedules(
        &mut self,
        given: &[Spanned<file::Schedule>],
        place: Place<'_>,
        own: Option<&Terms>,
    ) -> Option<Schedules> {
        if let (Some(key), true) = (place.limit.schedules.key(), given.len() > MOST) {
            self.error(key, format!("{} schedules are too many", given.len()), format!("write at most {MOST}"));
            return None;
        }
        let zone = self.schedule_zone(given)?;
        let mut list: Vec<Option<Schedule>> = Vec::new();
        for written in given {
            let schedule = self.schedule(written, place, own);
            if let Some(schedule) = &schedule {
                self.overlap(schedule, written.span, list.iter().flatten());
            }
            list.push(schedule);
        }
        let list: Vec<_> = list.into_iter().collect::<Option<_>>()?;
        Some(Schedules::new(list, zone))
    }

    /// The one zone that all of them go by: hours of two zones could not be told to be apart.
    fn schedule_zone(&mut self, given: &[Spanned<file::Schedule>]) -> Option<Zone> {
        let utc = Zone::find("UTC")?;
        let zone_of = |schedule: &file::Schedule| schedule.timezone.get().map_or(utc.clone(), |zone| zone.0.clone());
        let first = given.first().map_or(utc.clone(), |schedule| zone_of(schedule));
        for schedule in given.iter().filter(|schedule| !matches!(schedule.timezone, Setting::Invalid)) {
            if zone_of(schedule) != first {
                self.error(
                    schedule.timezone.key().unwrap_or(schedule.span),
                    "the schedules of a limit go by one time zone",
                    format!("write `timezone: {}` here too", first.name()),
                );
                return None;
            }
        }
        Some(first)
    }

    fn schedule(
        &mut self,
        written: &Spanned<file::Schedule>,
        place: Place<'_>,
        own: Option<&Terms>,
    ) -> Option<Schedule> {
        if written.name.is_absent() {
            self.error(written.span, "this schedule has no name", "write `name: night`, for example");
        }
        if written.rate.is_absent() && written.in_flight.is_absent() {
            self.error(written.span, "this schedule has no rate", "write a rate, `0/s` or `unlimited`");
        }
        let hours = self.hours(written);
        // It reads the limit's own states: they are the same limit at another hour.
        let stated = Stated { rate: &written.rate, burst: &written.burst, in_flight: &written.in_flight };
        let terms = self.terms_of(stated, place)?;
        self.same_states(own?, &terms, written)?;
        Some(Schedule { name: written.name.get()?.0.as_str().into(), hours: hours?, terms })
    }

    fn hours(&mut self, written: &Spanned<file::Schedule>) -> Option<Hours> {
        if [&written.from, &written.to].iter().any(|hour| matches!(hour, Setting::Invalid))
            || matches!(written.days, Setting::Invalid)
        {
            return None;
        }
        let spans = written.days.get().map(|days| days.0.as_slice());
        let days = spans.map_or(Days::ALL, |spans| spans.iter().fold(Days::default(), |all, span| all.and(span.0)));
        let from = written.from.get().map_or(0, |hour| hour.0);
        let to = written.to.get().map_or(DAY, |hour| hour.0);
        let place = written.to.key().or_else(|| written.from.key()).unwrap_or(written.span);
        if from == to || from == DAY || to == 0 {
            let message = format!("hours from {} to {} never hold", ClockText(from), ClockText(to));
            self.error(place, message, "end at 24:00 for midnight; leave `from` and `to` out for the whole day");
            return None;
        }
        if days == Days::default() {
            self.error(written.days.key().unwrap_or(place), "this list has no day", "write `days: [mon-fri]`");
            return None;
        }
        if days == Days::ALL && (from, to) == (0, DAY) {
            self.error(written.span, "this schedule always holds", "give `days`, `from` or `to`");
            return None;
        }
        Some(Hours { days, from, to })
    }

    /// Whether the terms read the states of the limit's own, so that nothing starts afresh with them.
    fn same_states(&mut self, own: &Terms, terms: &Terms, written: &Spanned<file::Schedule>) -> Option<()> {
        let (Terms::Limited(own), Terms::Limited(limits)) = (own, terms) else { return Some(()) };
        let place = written.rate.key().or_else(|| written.in_flight.key()).unwrap_or(written.span);
        let counted = |limit: &&Limit| !matches!(limit.algorithm, Algorithm::Penalty(_));
        let states = |limits: &[Limit]| -> Vec<_> {
            let mut states: Vec<_> = limits.iter().filter(counted).map(|limit| limit.state_id.to_string()).collect();
            states.sort_unstable();
            states
        };
        let in_flight = |limits: &[Limit]| matches!(limits[0].algorithm, Algorithm::InFlight(_));
        if in_flight(own) != in_flight(limits) {
            self.error(place, "a schedule counts as its limit does", "write two limits, one with `in_flight`");
            return None;
        }
        if states(own) != states(limits) {
            self.error(
                place,
                "a schedule has as many rates as its limit, with the same periods",
                "what is counted per hour can be read per hour only: write two limits where periods differ",
            );
            return None;
        }
        let window = |limits: &[Limit]| limits[0].algorithm.window_us();
        if window(own) != window(limits) {
            self.warn(
                place,
                "this schedule has another window than its limit: counts start afresh where it begins and ends",
                "write a rate with the period of the limit's own",
            );
        }
        Some(())
    }

    fn overlap<'s>(&mut self, schedule: &Schedule, span: Span, others: impl Iterator<Item = &'s Schedule>) {
        for other in others {
            if other.name == schedule.name {
                self.error(span, format!("there is a schedule `{}` already", other.name), "give this one another name");
            }
            if let Some((day, minute)) = schedule.hours.shared_with(&other.hours) {
                let (day, clock) = (Days::NAMES[usize::from(day)], ClockText(minute));
                self.error(
                    span,
                    format!("`{}` and `{}` hold at the same time, {day} {clock}", schedule.name, other.name),
                    "let one end where the other begins",
                );
            }
        }
    }
}

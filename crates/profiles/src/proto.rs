//! Samples of the heap as the `pprof` tool reads them.

use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use pprof::protos::{Function, Line, Location, Mapping, Message, Profile, Sample, ValueType};

use crate::error::{Error, Result};
use crate::samples::{self, RATE_BYTES};
use crate::symbols::{self, Place};
use crate::table::{self, Stack};

/// What of a heap profile the tool shows when it is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What is allocated and was not freed: Go's `heap`.
    InUse,
    /// What was allocated since recording began: Go's `allocs`.
    Allocated,
}

/// A heap profile: what was allocated since [recording](crate::record_heap) began, and what of it is still in use.
///
/// # Errors
/// When nothing was recorded.
pub async fn heap(view: View) -> Result<Vec<u8>> {
    if !samples::is_recording() {
        return Err(Error::NotRecorded);
    }
    // Finding the symbols takes its time.
    let write = move || {
        let profile = Writer::new(view).profile(&table::stacks());
        backtrace::clear_symbol_cache();
        profile.encode_to_vec()
    };
    Ok(tokio::task::spawn_blocking(move || samples::unseen(write)).await?)
}

/// A profile in the making: strings, functions and places are written once and then named by number, from 1 on.
struct Writer {
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<String, u64>,
    /// By return address.
    places: HashMap<usize, Vec<Place>>,
    /// By return address.
    locations: HashMap<usize, u64>,
    mappings: Vec<symbols::Mapping>,
}

impl Writer {
    fn new(view: View) -> Self {
        let mut writer = Self {
            profile: Profile::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            places: HashMap::new(),
            locations: HashMap::new(),
            mappings: symbols::mappings(),
        };
        // The format wants the empty one first.
        writer.string("");
        let types = [
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ];
        writer.profile.sample_type = types.into_iter().map(|(ty, unit)| writer.value_type(ty, unit)).collect();
        writer.profile.period_type = Some(writer.value_type("space", "bytes"));
        writer.profile.period = RATE_BYTES.into();
        writer.profile.default_sample_type = writer.string(match view {
            View::InUse => "inuse_space",
            View::Allocated => "alloc_space",
        });
        let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        writer.profile.time_nanos = i64::try_from(now).unwrap_or(i64::MAX);
        for number in 0..writer.mappings.len() {
            let mapping = writer.mappings[number].clone();
            let filename = writer.string(&mapping.file);
            writer.profile.mapping.push(Mapping {
                id: number as u64 + 1,
                memory_start: mapping.start,
                memory_limit: mapping.end,
                file_offset: mapping.offset,
                filename,
                // Nothing is left for the tool to look up, who may be on another machine.
                has_functions: true,
                ..Mapping::default()
            });
        }
        writer
    }

    fn profile(mut self, stacks: &[Stack]) -> Profile {
        for stack in stacks {
            let in_use = stack.allocated.without(stack.freed);
            let amounts = [stack.allocated, in_use].into_iter().flat_map(|amount| [amount.objects, amount.bytes]);
            let value = amounts.map(|amount| amount.round() as i64).collect();
            let callers = self.callers(&stack.frames);
            let location_id = callers.iter().map(|frame| self.location(*frame)).collect();
            self.profile.sample.push(Sample { location_id, value, ..Sample::default() });
        }
        self.profile
    }

    /// Without the innermost frames, which take the sample and hand out memory: what wants to be known is who asked for it.
    fn callers<'a>(&mut self, frames: &'a [usize]) -> &'a [usize] {
        let mut is_ours = |frame: &usize| self.places(*frame).iter().any(|place| symbols::is_profiler(&place.function));
        let callers = frames.iter().rposition(&mut is_ours).map_or(frames, |last| &frames[last + 1..]);
        // Of several in one place the others were inlined into the last.
        let mut asks =
            |frame: &usize| self.places(*frame).last().is_none_or(|place| !symbols::is_plumbing(&place.function));
        callers.iter().position(&mut asks).map_or(callers, |first| &callers[first..])
    }

    fn places(&mut self, frame: usize) -> &[Place] {
        // The call is before the address it returns to, which may already belong to another function.
        self.places.entry(frame).or_insert_with(|| symbols::places(frame.saturating_sub(1)))
    }

    /// The place from which a call was made that returns to this address.
    fn location(&mut self, frame: usize) -> u64 {
        if let Some(known) = self.locations.get(&frame) {
            return *known;
        }
        let id = self.locations.len() as u64 + 1;
        self.locations.insert(frame, id);
        let places = self.places(frame).to_vec();
        let line = places.iter().map(|place| self.line(place)).collect();
        let address = frame.saturating_sub(1) as u64;
        let mapping = self.mappings.iter().position(|mapping| (mapping.start..mapping.end).contains(&address));
        let mapping_id = mapping.map_or(0, |number| number as u64 + 1);
        self.profile.location.push(Location { id, mapping_id, address, line, ..Location::default() });
        id
    }

    fn line(&mut self, place: &Place) -> Line {
        let function_id = match self.functions.get(&place.function) {
            Some(known) => *known,
            None => {
                let id = self.functions.len() as u64 + 1;
                self.functions.insert(place.function.clone(), id);
                let (name, filename) = (self.string(&place.function), self.string(&place.file));
                self.profile.function.push(Function { id, name, system_name: name, filename, start_line: 0 });
                id
            }
        };
        Line { function_id, line: place.line.into() }
    }

    fn value_type(&mut self, ty: &str, unit: &str) -> ValueType {
        ValueType { ty: self.string(ty), unit: self.string(unit) }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(known) = self.strings.get(text) {
            return *known;
        }
        let number = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }
}

//! Which pages a task still lacks, by the address they have in it now, and where they lie in the pages file.
//!
//! Addresses come from the images and from the task itself; no arithmetic here may wrap.

use std::collections::{BTreeMap, VecDeque};

use criu::pagemap::Range;

/// The pages that are still to be given to one address space.
#[derive(Debug, Clone, Default)]
pub struct Ranges {
    /// By start.
    map: BTreeMap<u64, Rest>,
    /// Where to look for what is to be loaded next.
    plan: VecDeque<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    end: u64,
    offset: u64,
}

impl Ranges {
    /// All of them. Small areas (stacks, what belongs to libraries) are planned first, because everything needs them.
    pub fn new(list: &[Range]) -> Self {
        let map = list.iter().map(|r| (r.start, Rest { end: r.end, offset: r.offset })).collect();
        let mut plan: Vec<(u64, u64)> = list.iter().map(|r| (r.start, r.end)).collect();
        plan.sort_by_key(|(start, end)| (end - start, *start));
        Ranges { map, plan: plan.into() }
    }

    /// Whether nothing is missing any more.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// What is missing at this address and around it, no further than to the borders of a block of that size.
    pub fn around(&self, address: u64, block: u64) -> Option<Range> {
        let (&start, rest) = self.map.range(..=address).next_back()?;
        if address >= rest.end {
            return None;
        }
        let low = (address - address % block).max(start);
        let high = (address - address % block).saturating_add(block).min(rest.end);
        Some(Range { start: low, end: high, offset: rest.offset + (low - start) })
    }

    /// What to load next, no more than so many bytes.
    pub fn next(&mut self, most: u64) -> Option<Range> {
        while let Some((start, end)) = self.plan.front().copied() {
            if let Some(range) = self.first_in(start, end) {
                return Some(Range { end: range.end.min(range.start.saturating_add(most)), ..range });
            }
            self.plan.pop_front();
        }
        // What was moved away from where it was planned.
        let (&start, rest) = self.map.first_key_value()?;
        Some(Range { start, end: rest.end.min(start.saturating_add(most)), offset: rest.offset })
    }

    fn first_in(&self, start: u64, end: u64) -> Option<Range> {
        if start >= end {
            return None;
        }
        let before = self.map.range(..=start).next_back().filter(|(_, rest)| rest.end > start);
        let (&first, rest) = before.or_else(|| self.map.range(start..end).next())?;
        let from = first.max(start);
        Some(Range { start: from, end: rest.end.min(end), offset: rest.offset + (from - first) })
    }

    /// These pages are there, or are no longer wanted.
    pub fn drop(&mut self, start: u64, end: u64) {
        self.take(start, end);
    }

    /// The task has moved this area.
    pub fn remap(&mut self, from: u64, to: u64, bytes: u64) {
        let moved = self.take(from, from.saturating_add(bytes));
        self.take(to, to.saturating_add(bytes));
        for Range { start, end, offset } in moved {
            let Some(start) = to.checked_add(start - from) else { continue };
            let Some(end) = to.checked_add(end - from) else { continue };
            self.map.insert(start, Rest { end, offset });
        }
    }

    fn take(&mut self, start: u64, end: u64) -> Vec<Range> {
        let mut taken = Vec::new();
        while let Some(range) = self.first_in(start, end) {
            let Some((&key, &rest)) = self.map.range(..=range.start).next_back() else { break };
            self.map.remove(&key);
            if key < range.start {
                self.map.insert(key, Rest { end: range.start, offset: rest.offset });
            }
            if range.end < rest.end {
                let offset = rest.offset + (range.end - key);
                self.map.insert(range.end, Rest { end: rest.end, offset });
            }
            taken.push(range);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64, offset: u64) -> Range {
        Range { start, end, offset }
    }

    fn all(ranges: &Ranges) -> Vec<Range> {
        ranges.map.iter().map(|(start, rest)| range(*start, rest.end, rest.offset)).collect()
    }

    #[test]
    fn small_areas_come_first_and_in_pieces() {
        let mut ranges = Ranges::new(&[range(0x1000, 0x9000, 0), range(0x20000, 0x21000, 0x8000)]);
        assert_eq!(ranges.next(0x4000), Some(range(0x20000, 0x21000, 0x8000)));
        ranges.drop(0x20000, 0x21000);
        assert_eq!(ranges.next(0x4000), Some(range(0x1000, 0x5000, 0)));
        ranges.drop(0x1000, 0x3000);
        assert_eq!(ranges.next(0x4000), Some(range(0x3000, 0x7000, 0x2000)));
        ranges.drop(0x3000, 0x9000);
        assert!(ranges.next(0x4000).is_none() && ranges.is_empty());
    }

    #[test]
    fn what_is_around_an_address_ends_at_blocks_and_borders() {
        let ranges = Ranges::new(&[range(0x3000, 0x15000, 0x100000)]);
        assert_eq!(ranges.around(0x5000, 0x10000), Some(range(0x3000, 0x10000, 0x100000)));
        assert_eq!(ranges.around(0x12000, 0x10000), Some(range(0x10000, 0x15000, 0x10d000)));
        assert_eq!(ranges.around(0x15000, 0x10000), None);
        assert_eq!(ranges.around(0x2000, 0x10000), None);
    }

    #[test]
    fn a_hole_splits() {
        let mut ranges = Ranges::new(&[range(0x1000, 0x9000, 0), range(0xa000, 0xc000, 0x8000)]);
        ranges.drop(0x3000, 0xb000);
        assert_eq!(all(&ranges), [range(0x1000, 0x3000, 0), range(0xb000, 0xc000, 0x9000)]);
        ranges.drop(0, u64::MAX);
        assert!(ranges.is_empty());
    }

    #[test]
    fn what_moves_keeps_its_place_in_the_file() {
        let mut ranges = Ranges::new(&[range(0x1000, 0x5000, 0), range(0x10000, 0x12000, 0x4000)]);
        ranges.remap(0x2000, 0x11000, 0x2000);
        let expected = [
            range(0x1000, 0x2000, 0),
            range(0x4000, 0x5000, 0x3000),
            range(0x10000, 0x11000, 0x4000),
            range(0x11000, 0x13000, 0x1000),
        ];
        assert_eq!(all(&ranges), expected);
        // All of it is found again, wherever it was planned.
        let mut bytes = 0;
        while let Some(next) = ranges.next(0x1000) {
            bytes += next.end - next.start;
            ranges.drop(next.start, next.end);
        }
        assert_eq!(bytes, 0x5000);
    }

    #[test]
    fn a_move_to_the_end_of_the_address_space_does_not_wrap() {
        let mut ranges = Ranges::new(&[range(0x1000, 0x5000, 0)]);
        ranges.remap(0x1000, u64::MAX - 0xfff, 0x4000);
        assert!(ranges.next(0x1000).is_none());
    }
}

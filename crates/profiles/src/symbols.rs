//! Addresses to names, when somebody asks: from the symbol tables of the program's files.

use std::ffi::c_void;

/// A function, and the line it is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) function: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// A part of a file that is mapped to be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: u64,
    pub(crate) file: String,
}

/// The function at this address, and whom it was inlined into, innermost first. Empty when nobody knows.
pub(crate) fn places(address: usize) -> Vec<Place> {
    let mut found = Vec::new();
    backtrace::resolve(std::ptr::without_provenance_mut::<c_void>(address), |symbol| {
        let Some(name) = symbol.name() else { return };
        let file = symbol.filename().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        // The alternate form leaves out the hash.
        found.push(Place { function: format!("{name:#}"), file, line: symbol.lineno().unwrap_or(0) });
    });
    found
}

/// A function of ours that takes samples.
pub(crate) fn is_profiler(function: &str) -> bool {
    function.contains("profiles::sys::") || function.contains("profiles::samples::")
}

/// A function that only hands out memory.
pub(crate) fn is_plumbing(function: &str) -> bool {
    let function = function.trim_start_matches('<');
    ["__rust", "alloc::alloc::", "alloc::raw_vec::"].iter().any(|prefix| function.starts_with(prefix))
}

/// The parts of files that this process executes.
pub(crate) fn mappings() -> Vec<Mapping> {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    text.lines().filter_map(mapping).collect()
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_executable = words.next()?.contains('x');
    let offset = words.next()?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    // Device and inode come in between; the rest is a name, with blanks perhaps.
    let file = line.find('/').map(|at| line[at..].to_owned())?;
    is_executable.then_some(Mapping { start: number(start)?, end: number(end)?, offset: number(offset)?, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_files_that_are_executed_are_read() {
        let line = "5581d4a00000-5581d4c00000 r-xp 00012000 08:01 131 /usr/bin/a b";
        let read = Mapping {
            start: 0x5581_d4a0_0000,
            end: 0x5581_d4c0_0000,
            offset: 0x12000,
            file: "/usr/bin/a b".to_owned(),
        };
        assert_eq!(mapping(line), Some(read));
        assert_eq!(mapping("7ffd-7ffe r-xp 0 00:00 0 [vdso]"), None);
        assert_eq!(mapping("1-2 rw-p 0 08:01 131 /usr/bin/a"), None);
        assert_eq!(mapping(""), None);
        assert!(!mappings().is_empty());
    }

    #[test]
    fn whoever_asked_for_memory_is_not_left_out() {
        assert!(is_profiler("<profiles::sys::Heap as core::alloc::global::GlobalAlloc>::alloc"));
        assert!(
            is_plumbing("__rust_alloc") && is_plumbing("<alloc::alloc::Global as core::alloc::Allocator>::allocate")
        );
        for caller in ["profiles::proto::heap", "containerd::daemon::run", "alloc::vec::Vec<T>::with_capacity"] {
            assert!(!is_plumbing(caller) && !is_profiler(caller), "{caller}");
        }
    }
}

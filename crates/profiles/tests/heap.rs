//! A program with our allocator: what it allocates and frees is told of, by function.

use std::collections::HashMap;
use std::hint::black_box;

use pprof::protos::{Message, Profile};
use profiles::View;

#[global_allocator]
static HEAP: profiles::Heap = profiles::Heap::new();

const BLOCK_BYTES: usize = 16 << 10;
const BLOCKS: usize = 4096;

#[inline(never)]
fn keeps_blocks() -> Vec<Box<[u8]>> {
    let kept = (0..BLOCKS).map(|_| black_box(vec![1_u8; BLOCK_BYTES].into_boxed_slice())).collect();
    // Not the last thing that is called, whose caller an optimised program leaves out of the stack.
    black_box(kept)
}

#[inline(never)]
fn drops_blocks() {
    for _ in 0..BLOCKS {
        drop(black_box(vec![1_u8; BLOCK_BYTES]));
    }
}

#[inline(never)]
fn grows() -> Vec<u8> {
    let mut grown = Vec::new();
    while grown.len() < 32 << 20 {
        grown.push(black_box(1));
    }
    grown
}

/// The profile's values by the function of ours that is in the stack.
fn values(profile: &Profile) -> HashMap<&str, Vec<i64>> {
    let name = |function: u64| {
        let function = profile.function.iter().find(|f| f.id == function).unwrap();
        profile.string_table[usize::try_from(function.name).unwrap()].as_str()
    };
    let mut sums: HashMap<&str, Vec<i64>> = HashMap::new();
    for sample in &profile.sample {
        let locations = sample.location_id.iter().map(|id| profile.location.iter().find(|l| l.id == *id).unwrap());
        let functions: Vec<&str> = locations.flat_map(|l| &l.line).map(|line| name(line.function_id)).collect();
        for ours in ["keeps_blocks", "drops_blocks", "grows"] {
            if functions.iter().any(|function| function.contains(&format!("heap::{ours}"))) {
                let sum = sums.entry(ours).or_insert_with(|| vec![0; 4]);
                sum.iter_mut().zip(&sample.value).for_each(|(sum, value)| *sum += value);
            }
        }
        if let Some(first) = functions.first() {
            assert!(!first.contains("profiles::") && !first.contains("__rust_alloc"), "{functions:?}");
        }
    }
    sums
}

async fn profile(view: View) -> Profile {
    Profile::decode(&*profiles::heap(view).await.unwrap()).unwrap()
}

/// One sample in 8 blocks: the error of the estimate is far below a third, more or less always.
fn is_about(actual: i64, expected: usize) -> bool {
    let expected = expected as f64;
    (actual as f64 - expected).abs() < expected / 3.0
}

#[tokio::test]
async fn what_is_in_use_is_told_by_function() {
    assert!(profiles::heap(View::InUse).await.is_err(), "nothing is recorded yet");
    // Freed later, when it must not be taken for a sample.
    let before = keeps_blocks();
    profiles::record_heap();
    let kept = keeps_blocks();
    drops_blocks();
    let grown = grows();
    // Of one thread, freed by another.
    let others = std::thread::spawn(keeps_blocks).join().unwrap();
    drop(before);

    let first = profile(View::InUse).await;
    let total = 2 * BLOCKS * BLOCK_BYTES;
    let by_function = values(&first);
    let keeps = &by_function["keeps_blocks"];
    assert!(is_about(keeps[0], 2 * BLOCKS) && is_about(keeps[1], total), "{keeps:?}");
    assert_eq!(keeps[..2], keeps[2..], "nothing was freed");
    let drops = &by_function["drops_blocks"];
    assert!(is_about(drops[1], BLOCKS * BLOCK_BYTES), "{drops:?}");
    assert_eq!(drops[2..], [0, 0], "everything was freed");
    let grows = &by_function["grows"];
    assert!(is_about(grows[3], grown.capacity()), "only the last is in use: {grows:?}");

    let string = |at: i64| first.string_table[usize::try_from(at).unwrap()].as_str();
    let types: Vec<_> = first.sample_type.iter().map(|t| (string(t.ty), string(t.unit))).collect();
    assert_eq!(
        types,
        [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")]
    );
    assert_eq!((string(0), string(first.default_sample_type), first.period), ("", "inuse_space", 128 << 10));
    let program = std::env::current_exe().unwrap();
    assert!(first.mapping.iter().any(|m| string(m.filename) == program.to_string_lossy()), "{:?}", first.mapping);
    assert!(first.location.iter().any(|l| l.mapping_id > 0));

    drop((kept, others, grown));
    let second = profile(View::Allocated).await;
    assert_eq!(values(&second)["keeps_blocks"][2..], [0, 0]);
    assert_eq!(second.string_table[usize::try_from(second.default_sample_type).unwrap()], "alloc_space");
}

//! Randomness that reaches a program beside the doors: the hash maps' seeds, the order in which `tokio::select!` polls, and
//! the `rand` and `uuid` crates all ask the C library's `getrandom`. In this test binary that is the function below,
//! which answers from a generator of the thread's own. And the time that libraries read beside tokio's (`h2` forgets
//! streams by it, `hyper` writes it into every answer, whose length then varies) comes from `clock_gettime`: on such a
//! thread that is simulated time too. So a simulation on a fresh thread is a function of its seed.

#![allow(unsafe_code)] // the C library's function can't be replaced without

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Once;
use std::time::Duration;

/// Where a thread's generator starts that no simulation seeded.
const UNSEEDED: u64 = 0x9e37_79b9_7f4a_7c15;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(UNSEEDED) };
    /// Simulated nanoseconds, on a thread that was seeded.
    static NOW: Cell<Option<u64>> = const { Cell::new(None) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What the first panic on this thread said, also one that tokio caught.
pub fn panicked() -> Option<String> {
    PANIC.with_borrow(Clone::clone)
}

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = PANIC.try_with(|first| first.borrow_mut().get_or_insert_with(|| panic.to_string()).clone());
            before(panic);
        }));
    });
}

/// Runs a simulation on a fresh thread whose every random byte follows from `seed`.
pub fn on_seeded_thread<T: Send + 'static>(
    seed: u64,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::thread::Result<T> {
    // Plans of SQL nest deeply in a build without optimisation.
    const STACK_BYTES: usize = 64 << 20;
    watch_panics();
    let name = format!("seed {seed}");
    let seeded = move || {
        STATE.set(mix(seed));
        NOW.set(Some(0));
        run()
    };
    std::thread::Builder::new()
        .name(name)
        .stack_size(STACK_BYTES)
        .spawn(seeded)
        .expect("a thread")
        .join()
}

/// SplitMix64's output function.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn next_byte() -> u8 {
    // While a thread ends its state may be gone; what is asked for then decides nothing.
    STATE
        .try_with(|state| {
            state.set(state.get().wrapping_add(UNSEEDED));
            mix(state.get()) as u8
        })
        .unwrap_or(0)
}

/// Stands in for the C library's function of this name.
///
/// # Safety
/// `buffer` points to `length` bytes that may be written, as the C library's callers know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    for place in 0..length {
        // SAFETY: the caller vouches for `length` writable bytes from `buffer` on.
        unsafe { buffer.cast::<u8>().add(place).write(next_byte()) };
    }
    length as isize
}

/// How much simulated time has passed on this thread.
pub fn time() -> Duration {
    Duration::from_nanos(NOW.get().unwrap_or_default())
}

/// This much simulated time has passed on this thread.
pub fn time_is(elapsed: Duration) {
    NOW.set(Some(elapsed.as_nanos() as u64));
}

/// Stands in for the C library's function of this name.
///
/// # Safety
/// `time` points to a `timespec` that may be written, as the C library's callers know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // Far enough from zero that nobody who subtracts a day falls below it.
    const START_SECONDS: i64 = 1_700_000_000;
    let simulated = NOW.try_with(Cell::get).ok().flatten();
    let Some(nanos) = simulated.filter(|_| matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC)) else {
        // SAFETY: the caller vouches for `time`; the kernel checks `clock`.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as c_int;
    };
    let now = libc::timespec {
        tv_sec: START_SECONDS + (nanos / 1_000_000_000) as i64,
        tv_nsec: (nanos % 1_000_000_000) as i64,
    };
    // SAFETY: the caller vouches for `time`.
    unsafe { time.write(now) };
    0
}

#[test]
fn hash_maps_are_a_function_of_the_seed() {
    use std::collections::HashMap;
    let order = || {
        (0..100)
            .map(|n| (n, ()))
            .collect::<HashMap<i32, ()>>()
            .into_keys()
            .collect::<Vec<_>>()
    };
    let of = |seed| on_seeded_thread(seed, order).expect("no panic");
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

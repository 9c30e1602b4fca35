//! A heap block behind one pointer of eight bytes, which is either some bytes or a link to an older block.
//!
//! The only unsafe code of this crate, for memory: a `Box<[u8]>` is sixteen bytes. 5 million rows of 108 bytes take 149
//! bytes each (docs/performance.md); those eight and their free places would make it more than 157.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::{forget, replace};
use std::ptr::{NonNull, copy_nonoverlapping};

/// In a block's head: it is a `Link`. Otherwise the head is the number of bytes behind it.
const LINK: u32 = 1 << 31;
/// Bytes of a head.
const HEAD: usize = size_of::<u32>();

/// Owns what it points to.
///
/// Invariant: it points to a head. If that has `LINK`, the head is the first field of a `Link` which `Box` allocated;
/// if not, so many initialised bytes lie behind it, all allocated with `layout` of their number.
pub(super) struct Block(NonNull<u32>);

/// Invariant: `newest` is bytes.
#[repr(C)]
struct Link {
    head: u32,
    newest: Block,
    older: Block,
}

// SAFETY: a block owns plain bytes and blocks, and changes only through `&mut`; there is nothing of a thread in it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

fn layout(length: usize) -> Layout {
    let layout = Layout::from_size_align(HEAD + length, align_of::<u32>());
    layout.expect("a block is shorter than 2 GiB")
}

impl Block {
    /// A block of these bytes, one part behind the other.
    #[inline]
    pub(super) fn new<const N: usize>(parts: [&[u8]; N]) -> Self {
        let length = parts.iter().map(|part| part.len()).sum();
        assert!(length < LINK as usize, "a row is shorter than 2 GiB");
        let layout = layout(length);
        // SAFETY: the layout is not of size 0; each write lies within it, for the parts' lengths add up to `length`,
        // and none overlaps a part, since the block is new; the head is aligned.
        unsafe {
            let Some(head) = NonNull::new(alloc(layout).cast::<u32>()) else {
                handle_alloc_error(layout);
            };
            head.write(length as u32);
            let mut to = head.add(1).cast::<u8>();
            for part in parts {
                copy_nonoverlapping(part.as_ptr(), to.as_ptr(), part.len());
                to = to.add(part.len());
            }
            Self(head)
        }
    }

    #[inline]
    fn head(&self) -> u32 {
        // SAFETY: it points to a head (the type's invariant).
        unsafe { self.0.read() }
    }

    #[inline]
    fn link(&self) -> Option<&Link> {
        // SAFETY: with `LINK` the head is the first field of a `Link`, which `&self` borrows (the type's invariant).
        (self.head() & LINK != 0).then(|| unsafe { self.0.cast::<Link>().as_ref() })
    }

    fn link_mut(&mut self) -> Option<&mut Link> {
        // SAFETY: as in `link`, and `&mut self` borrows it alone.
        (self.head() & LINK != 0).then(|| unsafe { self.0.cast::<Link>().as_mut() })
    }

    /// The bytes of the newest block.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        let newest = self.link().map_or(self, |link| &link.newest);
        let length = newest.head() as usize;
        // SAFETY: `newest` is bytes (`Link`'s invariant, or no link), so many lie behind its head, and `&self` borrows
        // them.
        unsafe { NonNull::slice_from_raw_parts(newest.0.add(1).cast::<u8>(), length).as_ref() }
    }

    /// Asks the memory for its first bytes: a walk over rows that lie anywhere is four times as fast so.
    #[inline]
    pub(super) fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let first = self.0.as_ptr().cast::<i8>();
            // SAFETY: it is a hint to the processor, which may be of any address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(first);
                _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(64));
            }
        }
    }

    /// The block behind the newest.
    #[inline]
    pub(super) fn older(&self) -> Option<&Self> {
        self.link().map(|link| &link.older)
    }

    /// The same, to be changed.
    pub(super) fn older_mut(&mut self) -> Option<&mut Self> {
        self.link_mut().map(|link| &mut link.older)
    }

    /// Puts bytes in the newest's place.
    pub(super) fn replace(&mut self, newest: Self) {
        debug_assert!(newest.link().is_none());
        match self.link_mut() {
            Some(link) => link.newest = newest,
            None => *self = newest,
        }
    }

    /// Puts bytes before all.
    pub(super) fn push(&mut self, newest: Self) {
        debug_assert!(newest.link().is_none());
        // A second owner of what `self` owns, until `self` is overwritten, unseen by anyone else and not dropped.
        let older = Self(self.0);
        let link = Box::new(Link {
            head: LINK,
            newest,
            older,
        });
        forget(replace(self, Self(NonNull::from(Box::leak(link)).cast())));
    }

    /// The newest goes, and the one behind it takes its place. False: there is none, and nothing is done.
    pub(super) fn pop(&mut self) -> bool {
        self.unlink(|_, older| older)
    }

    /// The one behind the newest goes. False: there is none, and nothing is done.
    pub(super) fn drop_behind(&mut self) -> bool {
        match self.link_mut() {
            Some(link) => link.older.pop() || self.unlink(|newest, _| newest),
            None => false,
        }
    }

    /// Takes a link apart and keeps the block that `keep` chooses.
    fn unlink(&mut self, keep: impl FnOnce(Self, Self) -> Self) -> bool {
        if self.link().is_none() {
            return false;
        }
        // SAFETY: with `LINK` it points to a `Link` that `Box` allocated; `self` owned it and is overwritten below,
        // without being dropped.
        let link = *unsafe { Box::from_raw(self.0.cast::<Link>().as_ptr()) };
        forget(replace(self, keep(link.newest, link.older)));
        true
    }

    /// Bytes of the newest, its head included.
    pub(super) fn size(&self) -> usize {
        HEAD + self.bytes().len()
    }
}

/// Bytes that each block behind another one takes besides its own.
pub(super) const LINK_SIZE: u64 = size_of::<Link>() as u64;

/// Link by link: a long chain would overflow the stack.
impl Drop for Block {
    fn drop(&mut self) {
        while self.pop() {}
        // SAFETY: what is left is bytes, allocated with this layout (the type's invariant), and nobody looks at them
        // again.
        unsafe { dealloc(self.0.cast::<u8>().as_ptr(), layout(self.head() as usize)) }
    }
}

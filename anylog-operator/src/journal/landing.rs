//! Whether a frame is written, for those who get everything ready meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Landed {
    #[default]
    Waiting,
    /// It is being written.
    Going,
    /// The frame's place in the journal.
    Written(u64),
    Lost,
}

/// What becomes of a frame. It is told before the frame's sender is, to all frames of one write.
#[derive(Debug, Default)]
pub(crate) struct Landing {
    landed: Mutex<Landed>,
    told: Condvar,
}

impl Landing {
    /// Waits until the frame is written, and returns its place in the journal; none when it never will be.
    pub(crate) fn wait(&self) -> Option<u64> {
        let mut landed = self.landed.lock();
        loop {
            match *landed {
                Landed::Waiting | Landed::Going => self.told.wait(&mut landed),
                Landed::Written(sequence) => return Some(sequence),
                Landed::Lost => return None,
            }
        }
    }

    /// Waits no longer than this. Returns whether it is known what became of the frame.
    pub(crate) fn wait_for(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut landed = self.landed.lock();
        while matches!(*landed, Landed::Waiting | Landed::Going) {
            if self.told.wait_until(&mut landed, until).timed_out() {
                return !matches!(*landed, Landed::Waiting | Landed::Going);
            }
        }
        true
    }

    /// Whether the frame is still to be written, or being written.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(*self.landed.lock(), Landed::Waiting | Landed::Going)
    }

    /// Whether the frame waits for a write that is not begun yet.
    pub(crate) fn is_waiting(&self) -> bool {
        *self.landed.lock() == Landed::Waiting
    }

    fn tell(&self, landed: Landed) {
        let mut known = self.landed.lock();
        if matches!(*known, Landed::Waiting | Landed::Going) {
            *known = landed;
            drop(known);
            self.told.notify_all();
        }
    }
}

/// The side of the journal. A frame that is dropped untold is lost.
#[derive(Debug, Default)]
pub(super) struct Teller(Option<Arc<Landing>>);

impl Teller {
    pub(super) fn new(landing: Arc<Landing>) -> Self {
        Self(Some(landing))
    }

    pub(super) fn going(&self) {
        if let Some(landing) = &self.0 {
            *landing.landed.lock() = Landed::Going;
        }
    }

    pub(super) fn written(&self, sequence: u64) {
        if let Some(landing) = &self.0 {
            landing.tell(Landed::Written(sequence));
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if let Some(landing) = &self.0 {
            landing.tell(Landed::Lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_what_became_of_a_frame() {
        let [written, lost] = [(); 2].map(|()| Arc::<Landing>::default());
        let waiting = [&written, &lost].map(|landing| {
            let landing = Arc::clone(landing);
            std::thread::spawn(move || landing.wait())
        });
        assert!(written.is_under_way() && !written.wait_for(Duration::from_millis(1)));
        let teller = Teller::new(Arc::clone(&written));
        teller.written(7);
        drop(teller);
        // A journal that ends with a panic.
        drop(Teller::new(Arc::clone(&lost)));
        assert!(!lost.is_under_way() && written.wait_for(Duration::ZERO) && lost.wait_for(Duration::ZERO));
        assert_eq!(waiting.map(|thread| thread.join().expect("no panic")), [Some(7), None]);
    }
}

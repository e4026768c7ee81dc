//! Policies in ledger order, in pieces that clones share.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::Policy;

/// How long a piece becomes before it is parted. A change copies one piece when it is shared.
const LONGEST: usize = 256;

/// The order of the ledger: what a master knows before what is local, each by date, then by id.
pub(super) fn order(a: &Policy, b: &Policy) -> Ordering {
    a.is_local().cmp(&b.is_local()).then_with(|| a.order(b))
}

/// A sorted list of policies.
#[derive(Clone, Default)]
pub(super) struct Ordered {
    // None of them is empty.
    pieces: Vec<Arc<Vec<Arc<Policy>>>>,
    len: usize,
}

impl Ordered {
    /// A list of policies that are sorted already.
    pub(super) fn from_sorted(policies: &[Arc<Policy>]) -> Self {
        let pieces = policies.chunks(LONGEST).map(|piece| Arc::new(piece.to_vec())).collect();
        Self { pieces, len: policies.len() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Policy>> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    /// The last policies, in order.
    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = &Arc<Policy>> {
        let mut skip = self.len.saturating_sub(count);
        self.pieces.iter().flat_map(move |piece| {
            let from = skip.min(piece.len());
            skip -= from;
            piece[from..].iter()
        })
    }

    /// The piece in which a policy is or belongs.
    fn piece_of(&self, policy: &Policy) -> usize {
        let is_before = |piece: &Arc<Vec<Arc<Policy>>>| piece.first().is_some_and(|first| order(first, policy).is_le());
        self.pieces.partition_point(is_before).saturating_sub(1)
    }

    pub(super) fn insert(&mut self, policy: Arc<Policy>) {
        self.len += 1;
        let at = self.piece_of(&policy);
        let is_last = at + 1 >= self.pieces.len();
        let Some(piece) = self.pieces.get_mut(at) else {
            self.pieces.push(Arc::new(vec![policy]));
            return;
        };
        let place = piece.partition_point(|known| order(known, &policy).is_lt());
        if piece.len() < LONGEST {
            Arc::make_mut(piece).insert(place, policy);
        } else if is_last && place == piece.len() {
            // Most policies are the youngest: full pieces stay full.
            self.pieces.push(Arc::new(vec![policy]));
        } else {
            let mut first = piece.as_ref().clone();
            let mut second = first.split_off(LONGEST / 2);
            if place <= LONGEST / 2 {
                first.insert(place, policy);
            } else {
                second.insert(place - LONGEST / 2, policy);
            }
            *piece = Arc::new(first);
            self.pieces.insert(at + 1, Arc::new(second));
        }
    }

    pub(super) fn remove(&mut self, policy: &Policy) {
        let at = self.piece_of(policy);
        let Some(piece) = self.pieces.get_mut(at) else { return };
        let Ok(place) = piece.binary_search_by(|known| order(known, policy)) else { return };
        self.len -= 1;
        if piece.len() == 1 {
            self.pieces.remove(at);
        } else {
            Arc::make_mut(piece).remove(place);
        }
    }
}

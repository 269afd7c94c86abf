//! Many short lists in one: thousands of small allocations were most of what an analysis cost.

/// Lists of places, by number.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// Where each list begins, and where the last one ends.
    starts: Vec<usize>,
    items: Vec<usize>,
}

impl Lists {
    /// So many lists, from pairs of a list's number and an item; the items of a list stay in order.
    pub(crate) fn new(lists: usize, pairs: &[(usize, usize)]) -> Self {
        let mut starts = vec![0_usize; lists.saturating_add(1)];
        for (list, _) in pairs {
            if let Some(next) = starts.get_mut(list.saturating_add(1)) {
                *next = next.saturating_add(1);
            }
        }
        let mut sum = 0_usize;
        for start in &mut starts {
            sum = sum.saturating_add(*start);
            *start = sum;
        }
        let (mut items, mut next) = (vec![0; sum], starts.clone());
        for (list, item) in pairs {
            let Some(place) = next.get_mut(*list) else { continue };
            if let Some(free) = items.get_mut(*place) {
                *free = *item;
            }
            *place = place.saturating_add(1);
        }
        Self { starts, items }
    }

    /// The items of a list.
    pub(crate) fn get(&self, list: usize) -> &[usize] {
        let range = self.starts.get(list).zip(self.starts.get(list.saturating_add(1)));
        range.and_then(|(start, end)| self.items.get(*start..*end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_their_items_in_order() {
        let lists = Lists::new(4, &[(2, 5), (0, 1), (2, 4), (3, 9), (9, 1)]);
        let all: Vec<&[usize]> = (0..5).map(|list| lists.get(list)).collect();
        assert_eq!(all, [&[1][..], &[], &[5, 4], &[9], &[]]);
    }
}

//! Browsers: subscriptions that look at what is ready in a queue and take nothing.
//!
//! A browser is no fact and changes none. It sees each message once, in the order of delivery, up
//! to the end of the queue, and is told so. What comes or goes meanwhile it may see or not.

use forebay_journal::QueueId;

use super::deliver::Pumped;
use super::{Host, Replies};
use crate::frontend::{Reply, Subscription};
use crate::queue::{BrowsePlace, FilterId, Place};
use crate::shard::ConnectionId;
use crate::shard::link::{Browser, Delivery, Taker};

/// Messages looked up at a time.
const BROWSED_AT_ONCE_MAX: usize = 64;

impl Host {
    pub(super) fn begin_browsing(
        &mut self,
        link: ConnectionId,
        subscription: Subscription,
        queue: QueueId,
        filter: Option<FilterId>,
    ) {
        self.begin_browsing_all(link, subscription, vec![queue], filter);
    }

    /// Begins to look at queues one after another, the last one first.
    pub(super) fn begin_browsing_all(
        &mut self,
        link: ConnectionId,
        subscription: Subscription,
        mut queues: Vec<QueueId>,
        filter: Option<FilterId>,
    ) {
        self.link(link).browsers.push(Browser {
            subscription,
            // Where there is none, one that is not there is at its end at once.
            queue: queues.pop().unwrap_or(QueueId(0)),
            others: queues,
            filter,
            place: BrowsePlace::START,
            is_at_end: false,
        });
        self.wake_link(link);
    }

    /// Whether a browser of this name was there; it is not any more.
    pub(super) fn stop_browsing(&mut self, link: ConnectionId, subscription: Subscription) -> bool {
        let browsers = &mut self.link(link).browsers;
        let at = browsers
            .iter()
            .position(|browser| browser.subscription == subscription);
        let Some(at) = at else { return false };
        let browser = browsers.remove(at);
        self.filters.let_go(browser.filter);
        true
    }

    /// The connection looks at nothing any more.
    pub(super) fn stop_all_browsing(&mut self, link: ConnectionId) {
        let browsers = std::mem::take(&mut self.link(link).browsers);
        for browser in browsers {
            self.filters.let_go(browser.filter);
        }
    }

    /// Looks up what the browsers of a link see next, once all before has left; whether something
    /// can leave at once.
    ///
    /// A ready message may not be durable yet: everything waits in the gate for what is appended
    /// so far.
    pub(super) fn browse(&mut self, id: ConnectionId) -> bool {
        let Some(link) = self.links.get_mut(&id) else {
            return false;
        };
        if link.parked_count > 0 {
            return false;
        }
        let Some(at) = link.browsers.iter().position(|one| !one.is_at_end) else {
            return false;
        };
        let others = std::mem::take(&mut link.browsers[at].others);
        let mut browser = Browser {
            others,
            ..link.browsers[at].clone()
        };
        let seen = self.machine.ready_after(browser.queue, browser.place);
        let seen: Vec<_> = seen.take(BROWSED_AT_ONCE_MAX).collect();
        browser.is_at_end = seen.len() < BROWSED_AT_ONCE_MAX;
        let lsn = self.lsn_so_far();
        for queued in seen {
            let (priority, message) = (queued.priority, queued.message);
            browser.place = BrowsePlace { priority, message };
            self.park_delivery(
                lsn,
                Delivery {
                    link: id,
                    subscription: browser.subscription,
                    taker: Taker::Browser(browser.queue, browser.filter),
                    delivery_tag: 0,
                    message,
                    place: queued.place,
                    attempts: queued.attempts,
                    is_redelivered: queued.attempts > 0,
                    first_of: None,
                },
            );
        }
        if browser.is_at_end {
            match browser.others.pop() {
                Some(next) => {
                    (browser.queue, browser.place) = (next, BrowsePlace::START);
                    browser.is_at_end = false;
                }
                None => self.park_delivery(lsn, end_of(id, browser.subscription)),
            }
        }
        let link = self.link(id);
        link.browsers[at] = browser;
        link.parked_count == 0
    }

    /// Tells a browser that it has seen all.
    pub(super) fn end_browsing(&self, delivery: &Delivery, replies: &mut impl Replies) -> Pumped {
        let end = Reply::BrowseEnd {
            shard: self.shard,
            subscription: delivery.subscription,
        };
        replies.reply(delivery.link, &end, 0);
        let (bytes, is_last) = (0, true);
        Pumped::Piece { bytes, is_last }
    }
}

fn end_of(link: ConnectionId, subscription: Subscription) -> Delivery {
    Delivery {
        link,
        subscription,
        taker: Taker::BrowserAtEnd,
        delivery_tag: 0,
        message: forebay_journal::MessageId(0),
        place: Place::NONE,
        attempts: 0,
        is_redelivered: false,
        first_of: None,
    }
}

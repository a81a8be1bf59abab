//! How often, and after which pauses, work is begun again whose connection was lost: a server that restarts, a pooler that was ended,
//! a backend that an administrator terminated. Only for work that is undone as a whole, or safe to do twice.
use std::time::Duration;

use crate::capabilities::Deadline;

/// One for each of what may go down, and one more. What is lost more often than that in one piece of work is not restarting.
const BEGINNINGS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

pub struct Patience {
    left: u32,
    pause: Duration,
    deadline: Deadline,
}

impl Patience {
    pub fn within(deadline: Deadline) -> Self {
        Self { left: BEGINNINGS - 1, pause: FIRST_PAUSE, deadline }
    }

    /// Waits, if there is another try. Connecting has a patience of its own besides.
    pub async fn again(&mut self) -> bool {
        if self.left == 0 || self.deadline.remaining() <= self.pause {
            return false;
        }
        self.left -= 1;
        tokio::time::sleep(self.pause).await;
        self.pause *= 2;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends() {
        let mut patience = Patience::within(Deadline::after(Duration::from_secs(60)));
        let mut tries = 1;
        while patience.again().await {
            tries += 1;
        }
        assert_eq!(tries, BEGINNINGS);
        let mut patience = Patience::within(Deadline::after(FIRST_PAUSE / 2));
        assert!(!patience.again().await, "no time for a pause");
    }
}

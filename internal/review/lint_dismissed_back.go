package review

import "fmt"

// dismissedBack is LP328: advice that was dismissed, and is another matter now.
func dismissedBack(a Advice, d *Dismissal, why string) Finding {
	mend := "look at it again: `longpole diagnose`, or dismiss it anew"
	if a.Route != "" {
		mend = fmt.Sprintf("longpole rollout start --route %s --advice %s, or dismiss it anew", a.Route, a.Code)
	}
	return Finding{
		Code: "LP328", Name: "dismissed, and back", Severity: Info, Subject: a.Code + " on " + a.Subject, Size: a.ShareP99,
		Detail: fmt.Sprintf("%s; it is %.0f %% of p99 now. Dismissed %s", why, 100*a.ShareP99, d.told()), Mend: mend,
	}
}

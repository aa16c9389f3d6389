package lab

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// The working times of the healthy system, in milliseconds p50 / p99. Those of frontend are what remains when every
// dependency has been cured, and so the floor of the demonstration.
var (
	ordersWork    = Lognormal{ms(8), ms(18)}
	pricingWork   = Lognormal{ms(5), ms(11)}
	inventoryWork = Lognormal{ms(6), ms(13)}
	validateWork  = Lognormal{ms(2), ms(4)}
	receiptWork   = Lognormal{ms(3), ms(7)}
	pageWork      = Lognormal{ms(12), ms(35)}
)

// stock answers GET /<name>/{n} after one draw of its working time: orders, pricing and inventory are all like this.
func (s *service) stock(mux *http.ServeMux, l Lognormal) {
	s.handle(mux, "/"+s.name+"/{n}", func(ctx context.Context, r *http.Request) (any, error) {
		if err := s.labour(ctx, s.name+" work", l); err != nil {
			return nil, err
		}
		return map[string]string{"service": s.name, "instance": s.instance, "n": r.PathValue("n")}, nil
	})
}

// frontend answers the two pages.
func (s *service) frontend(mux *http.ServeMux) {
	s.handle(mux, "/checkout", s.checkout)
	s.handle(mux, "/browse", s.browse)
}

// checkout asks three services one after the other although none needs another's answer: the serial calls that a
// diagnosis should find.
func (s *service) checkout(ctx context.Context, r *http.Request) (any, error) {
	user := url.PathEscape(r.URL.Query().Get("user"))
	if user == "" {
		return nil, &failure{status: http.StatusBadRequest, reason: "want ?user=N"}
	}
	if err := s.labour(ctx, "validate cart", validateWork); err != nil {
		return nil, err
	}
	page := make(map[string]any)
	for _, name := range []string{"orders", "pricing", "inventory"} {
		var part map[string]string
		if err := s.get(ctx, "/"+name+"/{n}", "/"+name+"/"+user, &part); err != nil {
			return nil, err
		}
		page[name] = part
	}
	return page, s.labour(ctx, "write receipt", receiptWork)
}

// browse renders the best sellers of a category.
func (s *service) browse(ctx context.Context, r *http.Request) (any, error) {
	category := r.URL.Query().Get("category")
	if category == "" {
		return nil, &failure{status: http.StatusBadRequest, reason: "want ?category=K"}
	}
	var best []Seller
	if err := s.get(ctx, "/catalogue/{category}", "/catalogue/"+url.PathEscape(category), &best); err != nil {
		return nil, err
	}
	if err := s.labour(ctx, "render page", pageWork); err != nil {
		return nil, err
	}
	return map[string]any{"title": fmt.Sprintf("Best of %s", category), "products": best}, nil
}

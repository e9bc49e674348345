"""Long runs behind the tables of docs/, and the page of one step: what the claims are measured with."""

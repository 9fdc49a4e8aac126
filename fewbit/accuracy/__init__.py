"""The accuracy of trained models beside the papers' claims: experiments, results and claims."""
